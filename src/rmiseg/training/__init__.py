"""Training, a plain PyTorch loop. Read in this order:

    trainer.py     the door: `Trainer`, its parts and `fit`
    loop.py        one run from top to bottom: open, train, validate, save, finish
    step.py        one optimizer step
    criterion.py   the loss of a step, with what is added to it
    assembly.py    what the options of a recipe mean: data, network, optimizer
    optim.py       parameter groups and optimizers; schedule.py the learning rate of every step
    state.py       what a run goes on from; run_folder.py the files of a run
    curves.py      what is logged; loggers/ where to; callbacks.py what else is called
"""
