"""Archives: files of deleted jobs, in a folder or in a bucket. This package knows nothing about the database."""
