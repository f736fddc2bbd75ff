"""How what a run tells reaches MLflow: a journal on disk, and a thread that passes it on."""
