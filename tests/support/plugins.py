"""What tests register."""

from rmiseg.config import registry


def forget_plugins():
    """Forget every component that is not rmiseg's own, and which plugins there were.

    Components of rmiseg stay, since a module that is imported already does not register them again.
    """
    for key, component in list(registry._components.items()):
        if not component.origin.startswith("rmiseg."):
            del registry._components[key]
    registry._plugins.clear()
