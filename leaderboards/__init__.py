"""From records to tables and verdicts. Reads records; never loads torch."""
