"""Every router is served: one quirk at a time, two at a time, and routers that say anything to anything."""
