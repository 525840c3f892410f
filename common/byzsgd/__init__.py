"""ByzSGD: training that stays correct while a third of the servers and of the workers lie.

Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine
Learning" (PODC 2020). ARCHITECTURE.md is the map of this package.
"""

__version__ = "0.1.0"
