"""The SDK of Jobnik: what producers and workers are written with."""
