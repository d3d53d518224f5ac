"""What long work leaves on disk: files that survive a kill, folders that never swallow another run, random states."""
