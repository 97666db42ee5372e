"""What registers share.

Names are lower-cased with dashes, flags come from signatures, a name is registered once.
"""

import inspect


def binary_to_boolean_type(value):
    return str(value).lower() in ("true", "1", "t", "y", "yes")


def custom_str_underscore(value):
    return str(value).replace("_", "-").strip()


def infer_args_from_signature(signature, ignore_args=None):
    if ignore_args is not None:
        print(ignore_args)
    skipped, found = ignore_args or [], {}
    for place, (name, value) in enumerate(signature.parameters.items()):
        if name in skipped or name == "self" or name.startswith("_") or place < len(skipped):
            continue
        given = value.default is not inspect.Parameter.empty
        kind = value.annotation if value.annotation is not inspect._empty else type(value.default) if given else str
        found[name] = {
            "type": kind,
            "required": not given and name != "num_classes",
            "default": value.default if given else None,
        }
    return found


def register_dynamic_module_fn(name, register, base, ignore_args=None):
    name = name.replace("_", "-").lower()

    def add(target):
        if name in register:
            raise ValueError(f"Name {name} already registered!")
        if inspect.isfunction(target):
            signature = inspect.signature(target)
        elif issubclass(target, base):
            signature = inspect.signature(target.__init__)
            if not hasattr(target, "NAME"):
                target.NAME = name
        else:
            raise ValueError(f"The registered class must be a subclass of {base.__name__}")
        register[name] = {"class": target, "parsable_args": infer_args_from_signature(signature, ignore_args)}
        return target

    return add
