"""Build a pack from a recipe.

pipeline       the complete build, in order
prerequisites  checks what the build needs and reports everything missing or invalid at once
tasks          the photos that each task learns from and must not learn from
steps          training steps that resume after an interruption
fitting        fits of generators as steps
experts        writes the experts into a pack's folder
job            a build as steps, for executors
training       trains the LoRAs of many tasks in one batched loop, with Adam per row
batches        the photos and captions of each training step
task_stack     the photos and texts of many tasks in one stack, and the rows that a step uses
recorded_step  small training steps on a GPU, recorded once and replayed
losses         contrastive and classification losses
estimate       estimates time, memory and disk space
data_notes     reports which data the build does not use
held_out       scores a generator on tasks left out of its fit
moments        means of photos and captions of the seen tasks
pool_tasks     the seen tasks, and phrases from their captions
bank           cached values of the seen tasks' photos
pool           the pool_tasks with their photos, for generators that learn by retrieval
folds          builds that each leave out a part of the tasks, so every task is unseen once
edit           adds or removes experts
update         adds content of later versions to an older pack
"""
