"""Recipe -> pack.

pipeline       the whole build, in order
prerequisites  what it needs before it starts, and everything that is missing or wrong at once
tasks          what each task learns from, and what nothing may learn from
steps          its steps, which resume after an interruption
training       many tasks' LoRAs in one batched loop; Adam by row
batches        the photos and captions of each training step
task_stack     the photos and texts of tasks in one stack, and the rows that a step shows
recorded_step  small steps on a GPU, recorded once and replayed
losses         contrastive and classification losses
estimate       time, memory and disk before it starts
data_notes     what is not seen of the data
held_out       a generator scored on tasks left out of its fit
moments        where photos and captions of the seen tasks lie
pool_tasks     the seen tasks, and phrases of their captions
bank           the photos of the seen tasks, computed once
pool           both, for generators that learn by retrieval
folds          every task unseen once: builds that each leave a part of the tasks out
edit           an expert added or removed
update         what later versions keep in a pack, added to one
"""
