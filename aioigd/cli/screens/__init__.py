"""What people see: tables and lines made of what was found out. Nothing here talks to a gateway."""
