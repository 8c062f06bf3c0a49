"""Read, write and compare adapter files of sglora and other programs.

file          sglora's format: one safetensors file
peft          PEFT's folders and state files
peft_config   PEFT's adapter_config.json
patterns      match PEFT's patterns within limits
clip_lora     CLIP-LoRA's file format
checkpoint    complete checkpoints with a merged update
foreign       an adapter before it has a layout
base          the model that an adapter was trained on, compared with the backbone
state_dict    tensors of any program by name, without the names of wrappers
torch_files   read PyTorch files that contain only plain tensors
plain_pickle  parse a pickle of plain tensors without unpickling it
read          recognise and read any format
provenance    short summaries of an adapter's metadata
made_from     the provenance of an adapter file as a flat table
formats       output formats and checks of output paths
write         write an adapter, read it back and compare, then move it into place
convert       import an adapter of another program
library       the adapters on this machine, named after their sentences
compare       compare two adapters: their updates and their provenance
"""
