"""Files on disk: writes are atomic, equal content gives equal bytes, and untrusted input is checked.

attempts      unfinished files of several attempts at making a file
atomic        write files and place folders atomically, clean up after killed processes
swap          replace a file only if it has not changed since it was read
untrusted     limits of size, depth and numbers; safe names; paths that stay inside their folder
escape        escape strings for shells, terminals, Markdown, LaTeX and CSV
text          JSON, JSON lines, CSV and plain lines; crash-safe appending of lines
toml          TOML tables, and the line of each key
tensors       safetensors with one metadata key; checkpoints of long work
plain_rows    rows of tensors in any safetensors file
tensor_rows   tensors larger than memory, read and written row by row
hashes        hashes of files and of content
names         valid file names for any text, and shortening of long names
images        recognise, list and safely decode photos
named_once    reject files that a list names twice
passed_over   count ignored files by reason
"""
