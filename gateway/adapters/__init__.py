"""What lies behind the doors: databases, disks, key services, backends, clocks, telemetry."""
