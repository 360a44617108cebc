"""Training, a plain PyTorch loop. Read in this order:

trainer.py    the door: `Trainer`, its parts and `fit`
loop.py       one run from top to bottom: open, train, validate, save, finish
step.py       one optimizer step
criterion.py  the loss of a step, with everything that is added to it
assembly.py   options of a recipe as objects: data, network, optimizer
optim.py      parameter groups and optimizers; schedule.py: the learning rate of every step
state.py      where a run stands, and goes on from; run_folder.py: the files of a run
curves.py     curves and pictures; loggers/: where they go; callbacks.py: what else is called
measuring.py  a step alone, to be timed
"""
