"""What a session is, and who owns it. No bytes on disk, no HTTP."""
