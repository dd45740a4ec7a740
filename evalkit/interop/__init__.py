"""Other tools' formats: logs of their runs read as ours, files made into test sets; no tool is needed for it."""
