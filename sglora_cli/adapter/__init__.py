"""Adapter files of many programs.

file          our own: one safetensors file
peft          PEFT's folders and states
peft_config   PEFT's adapter_config.json: what it says of the weights beside it
clip_lora     CLIP-LoRA's file
checkpoint    a whole checkpoint with the update merged in
foreign       an adapter before it has a layout
base          the model that an adapter was trained on, and whether it is the backbone
torch_files   PyTorch files: plain tensors or nothing
plain_pickle  the value of a pickle of plain tensors
read          recognises and reads any of them
provenance    what an adapter says of itself, at a glance
made_from     what an adapter file says of what it was made from
formats       the formats that it is written in, and whether a place is free for one
write         writes an adapter, reads it back, compares, puts it in place
convert       writes another program's adapter as one of our files
library       the adapters on this machine, by the names of their sentences
compare       two adapters: their updates, and what they were made from
"""
