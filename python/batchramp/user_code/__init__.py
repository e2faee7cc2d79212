"""What users write: their files and objects, and the errors their code raises."""
