"""Adapter files of many programs.

file          our own: one safetensors file
peft          PEFT's folders and states
clip_lora     CLIP-LoRA's file
checkpoint    a whole checkpoint with the update merged in
foreign       an adapter before it has a layout
torch_files   PyTorch files: plain tensors or nothing
read          recognises and reads any of them
write         writes an adapter, reads it back, compares, puts it in place
convert       writes another program's adapter as one of our files
"""
