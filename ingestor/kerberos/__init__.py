"""Tickets: a login by keytab that lasts as long as a job does."""
