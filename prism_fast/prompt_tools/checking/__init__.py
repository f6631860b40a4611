"""Whether the teacher sees what the prompts say: a few unguided images of every sense of every class."""
