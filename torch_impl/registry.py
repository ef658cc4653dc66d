"""The torch twin of each part of a primal, found by the part's class."""

_TORCH_VERSIONS = {}


def register(part_class):
    """Make `function` the torch twin of a kernel, transform or support: @register(Cauchy) def cauchy(kernel, x, y).

    A kernel's takes (kernel, x, y), x (..., M, D), y (..., N, D), to what its NumPy twin gives, (..., M, N): log_gram
    where the class has log_gram, else gram. A transform's takes (transform, keys, real), keys (..., n, D), real
    (..., n) booleans or None where all are, to the function x -> T x. A support's takes (support, i, j), tensors of
    positions that broadcast, to booleans. A formula that tensors understand as it is needs no second one:
    register(Cauchy)(Cauchy.log_gram).
    """

    def add(function):
        _TORCH_VERSIONS[part_class] = function
        return function

    return add


def torch_version(part):
    """The registered twin of a part. ValueError where its class has none."""
    function = _TORCH_VERSIONS.get(type(part))
    if function is None:
        name = type(part).__name__
        raise ValueError(f"{part}: expected a part with a torch twin; add one with torch_impl.register({name})")
    return function


def registered():
    """The classes that have a twin."""
    return tuple(_TORCH_VERSIONS)
