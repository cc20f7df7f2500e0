# What Godot's UPNP does, told by a line of JSON; what to do is in the environment (see peers.py).
extends SceneTree

func _init():
	var job = JSON.parse(OS.get_environment("AIOIGD_BENCHMARK")).result
	var upnp = UPNP.new()
	upnp.discover_multicast_if = job.source
	var started = OS.get_ticks_usec()
	upnp.discover(int(job.timeout))
	var found = upnp.get_gateway() != null and upnp.get_gateway().is_valid_gateway()
	if not job.cold:
		started = OS.get_ticks_usec()
	var made = 0
	for port in job.ports:
		if upnp.add_port_mapping(int(port), 0, "benchmark", "TCP") == UPNP.UPNP_RESULT_SUCCESS:
			made += 1
	var seconds = (OS.get_ticks_usec() - started) / 1000000.0
	print("RESULT " + JSON.print({"seconds": seconds, "made": made, "found": int(found)}))
	quit()
