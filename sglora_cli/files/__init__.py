"""Bytes on disk: whole or absent, the same content gives the same bytes, nothing from a stranger goes unchecked.

atomic        write a file, put a folder, clear up after a kill
swap          replace a file only while it is what was read
untrusted     limits of size, depth and numbers; safe names; paths that stay inside their folder
text          JSON, JSON lines, CSV and plain lines; append a line that survives a kill
toml          TOML tables, and the line each key stands in
tensors       safetensors with one metadata key; checkpoints of long work
plain_rows    rows of tensors in any safetensors file
tensor_rows   tensors larger than memory, read and written row by row
hashes        of files and of content
names         file names for any text, and for names that are too long
images        photos: which files are one, those in a folder, decoded safely
named_once    files that a list names, each once
passed_over   what a reader does not take, counted by reason
"""
