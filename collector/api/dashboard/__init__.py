"""The dashboard: pages over what the API reads, served by the same process, with nothing from the internet."""
