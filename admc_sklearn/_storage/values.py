"""Values of all kinds as JSON with arrays beside it, and back. No value is code.

None, truth values, whole numbers, text, finite floats and lists are JSON's own. All
else is an object whose key "is" says what: an array, a tuple, a date, a dtype, or an
instance of one of the classes of `classes`.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import zoneinfo
from decimal import Decimal

import numpy as np
import pandas as pd
import torch
from sklearn.impute import MissingIndicator
from torch import nn

from .classes import CLASSES, GONE, PARTS, TRANSIENT, held_as, lacks

# A list of so many words is stored as an array of their bytes.
MANY_WORDS = 200
TIMES = {
    kind.__name__: kind
    for kind in (
        datetime.date,
        datetime.time,
        datetime.datetime,
        datetime.timedelta,
        pd.Timestamp,
        pd.Timedelta,
        pd.Period,
    )
}
TORCH = {"Linear", "LayerNorm", "GELU", "Sequential", "ModuleList"}
POLARS = "Boolean Categorical Date Datetime Decimal Duration Enum Float32 Float64 Int8 "
POLARS += "Int16 Int32 Int64 Int128 Null Object String Time UInt8 UInt16 UInt32 UInt64"
POLARS = set(POLARS.split())


class Writer:
    """Turns values into JSON, and collects the arrays.

    Parameters
    ----------
    estimators : dict
        Classes of estimators that may occur, by name.

    Attributes
    ----------
    arrays : dict of arrays
        By the path of where they are: "model_.network.denoiser.start.weight".
    """

    def __init__(self, estimators):
        self.estimators = estimators
        self.arrays, self._names = {}, {}

    def write(self, value, path):
        """Make JSON of a value.

        Raises
        ------
        ValueError
            If it is a function, or an object of a class that is not known.
        """
        if value is None or type(value) in (bool, str, int):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"is": "float", "of": str(value)}
        if type(value) is list:
            return [self.write(v, f"{path}.{k}") for k, v in enumerate(value)]
        if type(value) in self.estimators.values():
            return self._estimator(value, path)
        if (found := self._marker(value)) is not None:
            return found
        for kinds, write in self._WRITERS.items():
            if isinstance(value, kinds):
                return write(self, value, path)
        found = self._dtype(value)
        if found is not None:
            return found
        raise ValueError(
            f"{path} holds {value!r:.60}, of class {type(value).__name__}, which a "
            "file that runs no code cannot hold."
        )

    def _estimator(self, value, path):
        parts = value._parts_to_store().items()
        start = f"{path}." if path else ""
        parts = {k: self.write(v, start + k) for k, v in parts}
        (name,) = (k for k, v in self.estimators.items() if v is type(value))
        return {"is": name, "of": parts}

    def _instance(self, value, path):
        name = type(value).__name__
        if CLASSES.get(name) is not type(value):
            raise ValueError(
                f"{path} holds an object of class {name}, which a file that runs no "
                "code cannot hold."
            )
        state, skipped = state_of(value), TRANSIENT.get(name, ())
        state = {k: v for k, v in state.items() if k not in skipped}
        if left := [k for k in state if held_as(PARTS[name], k) is None]:
            raise TypeError(f"the format does not know {left} of {name}")
        parts = {k: self.write(v, f"{path}.{k}") for k, v in state.items()}
        return {"is": name, "of": parts}

    def _module(self, value, path):
        name = type(value).__name__
        if name not in TORCH:
            return self._instance(value, path)
        if isinstance(value, (nn.Sequential, nn.ModuleList)):
            return {"is": name, "of": [*map(self.write, value, _numbered(path))]}
        state = {k: self.write(v, f"{path}.{k}") for k, v in value._parameters.items()}
        if name == "LayerNorm":
            state |= {"shape": list(value.normalized_shape), "eps": value.eps}
        elif name == "GELU":
            state["approximate"] = value.approximate
        return {"is": name, "of": state}

    def _tensor(self, value, path):
        array = value.detach().cpu()
        # Sums over other strides differ in the last bit: the order in memory is kept.
        order = sorted(range(array.ndim), key=lambda k: -array.stride(k))
        array = array.permute(order).contiguous().numpy()
        found = {"is": "tensor", "of": self._array_name(array, value, path)}
        return found | ({"order": order} if order != sorted(order) else {})

    def _array(self, value, path):
        if value.dtype.kind == "O":
            flat = self._list(value.ravel().tolist(), path)
            return {"is": "objects", "of": flat, "shape": list(value.shape)}
        if value.dtype.kind in "US":
            flat = self._list(value.ravel().tolist(), path)
            shape = list(value.shape)
            return {"is": "words", "of": flat, "shape": shape, "dtype": value.dtype.str}
        order = sorted(range(value.ndim), key=lambda k: -value.strides[k])
        array = np.ascontiguousarray(value.transpose(order))
        found = {"is": "array", "dtype": value.dtype.str}
        if value.dtype.kind in "mM":
            array = array.view(np.int64)
        found["of"] = self._array_name(
            array.astype(array.dtype.newbyteorder("=")), value, path
        )
        return found | ({"order": order} if order != sorted(order) else {})

    def _array_name(self, array, value, path):
        """Name of an array in the file; one that occurs twice is stored once."""
        key = id(value)
        if key not in self._names:
            self._names[key] = path, value  # the value lives on, so that its id does
            self.arrays[path] = array
        return self._names[key][0]

    def _list(self, values, path):
        """Write a list; many words as one array."""
        if len(values) < MANY_WORDS or not all(type(v) is str for v in values):
            return self.write(values, path)
        words = [value.encode("utf-8", "surrogatepass") for value in values]
        text = np.frombuffer(b"".join(words), np.uint8)
        size = np.array([len(word) for word in words], np.int64)
        self.arrays[f"{path}.text"], self.arrays[f"{path}.size"] = text, size
        return {"is": "text", "of": path}

    def _frame(self, value, path):
        columns = {str(k): value[k].to_numpy() for k in value}
        index = None
        if not isinstance(value.index, pd.RangeIndex):
            index = self.write(value.index.tolist(), path)
        parts = [[k, self.write(v, f"{path}.{k}")] for k, v in columns.items()]
        return {"is": "frame", "of": parts, "index": index}

    def _sequence(self, value, path):
        kind = type(value).__name__
        if type(value) not in (tuple, set, frozenset):
            raise ValueError(f"{path} holds a {kind}, which a file cannot hold.")
        many = sorted(value, key=repr) if kind != "tuple" else value
        return {"is": kind, "of": self.write(list(many), path)}

    def _dict(self, value, path):
        items = value.items()
        return {
            "is": "dict",
            "of": [
                [self.write(k, path), self.write(v, f"{path}.{k}")] for k, v in items
            ],
        }

    def _slice(self, value, path):
        parts = [value.start, value.stop, value.step]
        return {"is": type(value).__name__, "of": self.write(parts, path)}

    def _scalar(self, value, path):
        if value.dtype.kind in "mM":
            return {
                "is": "scalar",
                "of": int(value.view(np.int64)),
                "dtype": value.dtype.str,
            }
        return {
            "is": "scalar",
            "of": self.write(value.item(), path),
            "dtype": value.dtype.str,
        }

    def _index(self, value, path):
        return {"is": "index", "of": self._list(value.tolist(), path)}

    def _indicator(self, value, path):
        found = {"features": value.features_.tolist(), "n": int(value.n_features_in_)}
        return {"is": "MissingIndicator", "of": found}

    def _random_state(self, value, path):
        name, keys, *rest = value.get_state(legacy=True)
        return {
            "is": "RandomState",
            "of": self.write([name, keys.tolist(), *rest], path),
        }

    def _bytes(self, value, path):
        return {"is": "bytes", "of": value.hex()}

    def _decimal(self, value, path):
        return {"is": "Decimal", "of": str(value)}

    def _time(self, value, path):
        name = type(value).__name__
        if TIMES.get(name) is not type(value):
            raise ValueError(f"{path} holds a {name}, which a file cannot hold.")
        if name == "Period":
            return {"is": name, "of": [value.ordinal, value.freqstr]}
        if name in ("Timestamp", "Timedelta"):
            zone = self._zone(getattr(value, "tzinfo", None), path)
            return {"is": name, "of": [value._value, value.unit, zone]}
        if name == "timedelta":
            return {"is": name, "of": [value.days, value.seconds, value.microseconds]}
        zone = self._zone(getattr(value, "tzinfo", None), path)
        text = (value if name == "date" else value.replace(tzinfo=None)).isoformat()
        return {"is": name, "of": [text, zone]}

    def _interval(self, value, path):
        ends = [self.write(end, path) for end in (value.left, value.right)]
        return {"is": "Interval", "of": [*ends, value.closed]}

    def _zone(self, value, path):
        """Name of a time zone; seconds of a fixed one."""
        if value is None:
            return None
        name = getattr(value, "key", None) or getattr(value, "zone", None)
        if name is not None:
            return name
        return value.utcoffset(None).total_seconds()

    def _tzinfo(self, value, path):
        return {"is": "zone", "of": self._zone(value, path)}

    def _marker(self, value):
        """NA, NaT, and classes of times."""
        if value is pd.NA or value is pd.NaT:
            return {"is": "NA" if value is pd.NA else "NaT"}
        if isinstance(value, type) and TIMES.get(value.__name__) is value:
            return {"is": "class", "of": value.__name__}
        return None

    def _dtype(self, value):
        """Dtypes of numpy, pandas, polars and Arrow; None for anything else."""
        if isinstance(value, np.dtype):
            return {"is": "dtype", "of": value.str}
        if isinstance(value, pd.CategoricalDtype):
            levels = None
            if value.categories is not None:
                kind = value.categories.dtype
                levels = {
                    "of": self._list(value.categories.tolist(), "categories"),
                    "dtype": self._dtype(kind),
                }
            return {"is": "category", "of": levels, "ordered": bool(value.ordered)}
        if isinstance(value, pd.StringDtype):
            na = "nan" if value.na_value is not pd.NA else "NA"
            return {"is": "string", "of": value.storage, "na": na}
        if isinstance(value, pd.ArrowDtype):
            own = self._dtype(value.pyarrow_dtype)
            # Names that pandas does not read, or reads as another dtype.
            if own["is"] != "arrow" or own["of"] == "string":
                return {"is": "arrow_in_pandas", "of": own}
        if isinstance(value, pd.api.extensions.ExtensionDtype):
            return {"is": "pandas", "of": str(value)}
        library = type(value).__module__.split(".")[0]
        if library == "polars" or getattr(value, "__module__", "").startswith("polars"):
            return self._polars(value)
        if library == "pyarrow" and hasattr(value, "precision"):
            size = [value.precision, value.scale]
            return {"is": "arrow_decimal", "bits": value.bit_width, "with": size}
        if library == "pyarrow" and hasattr(value, "index_type"):
            parts = {"of": value.value_type, "index": value.index_type}
            parts = {name: self._dtype(part) for name, part in parts.items()}
            return {"is": "arrow_dictionary", **parts, "ordered": value.ordered}
        if library == "pyarrow":
            return {"is": "arrow", "of": str(value)}
        return None

    def _polars(self, value):
        name = value.__name__ if isinstance(value, type) else type(value).__name__
        if name not in POLARS:
            return None
        words = []
        if name == "Enum":
            words = [value.categories.to_list()]
        elif name == "Datetime":
            words = [value.time_unit, value.time_zone]
        elif name == "Duration":
            words = [value.time_unit]
        elif name == "Decimal":
            words = [value.precision, value.scale]
        return {"is": "polars", "of": name, "with": words}

    _WRITERS = {  # noqa: RUF012
        torch.Tensor: _tensor,
        nn.Module: _module,
        np.ndarray: _array,
        tuple(CLASSES.values()): _instance,
        pd.DataFrame: _frame,
        pd.Index: _index,
        dict: _dict,
        (tuple, set, frozenset): _sequence,
        (slice, range): _slice,
        MissingIndicator: _indicator,
        np.random.RandomState: _random_state,
        np.generic: _scalar,
        Decimal: _decimal,
        bytes: _bytes,
        pd.Interval: _interval,
        datetime.tzinfo: _tzinfo,
        (*TIMES.values(),): _time,
    }


def _numbered(path):
    k = 0
    while True:
        yield f"{path}.{k}"
        k += 1


def state_of(value):
    """Attributes of an instance: a dict. Those of modules include their parts."""
    if not isinstance(value, nn.Module):
        return dict(vars(value))
    own = {k: v for k, v in vars(value).items() if k not in _MODULE_STATE}
    return {**own, **value._parameters, **value._buffers, **value._modules}


_MODULE_STATE = set(vars(nn.Module()))


class Reader:
    """Turns JSON and arrays back into values.

    Parameters
    ----------
    arrays : dict of arrays, by name
    estimators : dict
        Classes of estimators that may occur, by name.
    limit : int
        Nothing may have more elements.
    """

    def __init__(self, arrays, estimators, limit):
        self.arrays, self._tensors = arrays, {}
        self.estimators, self.limit = estimators, limit

    def read(self, found):
        """Make a value of JSON."""
        if isinstance(found, list):
            return [self.read(part) for part in found]
        if not isinstance(found, dict):
            return found
        name = found["is"]
        if name in self.estimators:
            return self._estimator(self.estimators[name], found["of"])
        if name in CLASSES:
            return self._instance(name, found["of"])
        if name in TORCH:
            return self._torch(name, found["of"])
        return getattr(self, f"_read_{name}")(found)

    def _parts(self, parts):
        return {str(k): self.read(v) for k, v in parts.items()}

    def _estimator(self, kind, parts):
        parts = self._parts(parts)
        made = object.__new__(kind)
        if left := set(parts) - kind._attributes():
            raise ValueError(f"{kind.__name__} has no {sorted(left)}")
        vars(made).update({**kind._defaults(), **parts})
        return made

    def _instance(self, name, parts):
        kind, known = CLASSES[name], PARTS[name]
        gone = GONE.get(name, ())
        parts = self._parts({k: v for k, v in parts.items() if k not in gone})
        how = {key: held_as(known, key) for key in parts}
        if None in how.values() or lacks(known, parts):
            raise ValueError(f"{name} lacks or has other parts")
        if dataclasses.is_dataclass(kind):
            return kind(**parts)
        made = kind.__new__(kind)
        if not isinstance(made, nn.Module):
            vars(made).update(parts)
        else:
            nn.Module.__init__(made)
            for key, value in parts.items():
                if how[key] == "parameter":
                    made.register_parameter(key, _parameter(value))
                elif how[key] == "buffer":
                    made.register_buffer(key, value)
                else:
                    setattr(made, key, value)
        for key, make in TRANSIENT.get(name, {}).items():
            vars(made)[key] = make()
        return made

    def _torch(self, name, parts):
        if name in ("Sequential", "ModuleList"):
            modules = [self.read(part) for part in parts]
            return (
                nn.Sequential(*modules)
                if name == "Sequential"
                else nn.ModuleList(modules)
            )
        parts = self._parts(parts)
        if name == "GELU":
            return nn.GELU(parts["approximate"])
        if name == "Linear":
            made = nn.Linear(1, 1, bias=parts["bias"] is not None, device="meta")
            made.out_features, made.in_features = parts["weight"].shape
        else:
            made = nn.LayerNorm(parts["shape"], parts["eps"], device="meta")
        made.weight, made.bias = _parameter(parts["weight"]), _parameter(parts["bias"])
        return made

    def _read_float(self, found):
        return float(found["of"])

    def _read_tensor(self, found):
        name = found["of"]
        if name not in self._tensors:
            array = self.arrays[name]
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
            if "order" in found:
                tensor = tensor.permute(*np.argsort(found["order"]).tolist())
            self._tensors[name] = tensor
        return self._tensors[name]

    def _read_array(self, found):
        array, dtype = self.arrays[found["of"]], np.dtype(found["dtype"])
        array = (
            array.view(dtype) if dtype.kind in "mM" else array.astype(dtype, copy=False)
        )
        if "order" in found:
            array = array.transpose(np.argsort(found["order"]))
        return array

    def _read_objects(self, found):
        values = self.read(found["of"])
        flat = np.empty(len(values), dtype=object)
        flat[:] = values
        return flat.reshape(found["shape"])

    def _read_words(self, found):
        return np.array(self.read(found["of"]), found["dtype"]).reshape(found["shape"])

    def _read_text(self, found):
        text = self.arrays[found["of"] + ".text"].tobytes()
        ends = np.cumsum(self.arrays[found["of"] + ".size"]).tolist()
        starts = [0, *ends[:-1]]
        pairs = zip(starts, ends, strict=True)
        return [text[a:b].decode("utf-8", "surrogatepass") for a, b in pairs]

    def _read_frame(self, found):
        columns = {name: self.read(values) for name, values in found["of"]}
        return pd.DataFrame(columns, index=self.read(found["index"]))

    def _read_tuple(self, found):
        return tuple(self.read(found["of"]))

    def _read_set(self, found):
        return set(self.read(found["of"]))

    def _read_frozenset(self, found):
        return frozenset(self.read(found["of"]))

    def _read_dict(self, found):
        return {self.read(k): self.read(v) for k, v in found["of"]}

    def _read_slice(self, found):
        return slice(*self.read(found["of"]))

    def _read_range(self, found):
        return range(*self.read(found["of"]))

    def _read_scalar(self, found):
        dtype = np.dtype(found["dtype"])
        if dtype.kind in "mM":
            return np.array([found["of"]], np.int64).view(dtype)[0]
        return dtype.type(self.read(found["of"]))

    def _read_index(self, found):
        return pd.Index(self.read(found["of"]), dtype=object)

    def _read_MissingIndicator(self, found):
        if not 0 <= found["of"]["n"] <= self.limit:
            raise ValueError("more columns than the file has bytes")
        flags = np.zeros((2, found["of"]["n"]))
        flags[0, found["of"]["features"]] = np.nan
        return MissingIndicator(error_on_new=False).fit(flags)

    def _read_RandomState(self, found):
        made = np.random.RandomState()
        made.set_state(tuple(self.read(found["of"])))
        return made

    def _read_Decimal(self, found):
        return Decimal(found["of"])

    def _read_Period(self, found):
        ordinal, frequency = found["of"]
        return pd.Period(ordinal=ordinal, freq=frequency)

    def _read_Timestamp(self, found):
        value, unit, zone = found["of"]
        stamp = pd.Timestamp(np.datetime64(value, unit))
        return (
            stamp if zone is None else stamp.tz_localize("UTC").tz_convert(_zone(zone))
        )

    def _read_Timedelta(self, found):
        value, unit, _ = found["of"]
        return pd.Timedelta(np.timedelta64(value, unit))

    def _read_timedelta(self, found):
        return datetime.timedelta(*found["of"])

    def _read_date(self, found):
        return datetime.date.fromisoformat(found["of"][0])

    def _read_time(self, found):
        text, zone = found["of"]
        return datetime.time.fromisoformat(text).replace(tzinfo=_zone(zone))

    def _read_bytes(self, found):
        return bytes.fromhex(found["of"])

    def _read_datetime(self, found):
        text, zone = found["of"]
        return datetime.datetime.fromisoformat(text).replace(tzinfo=_zone(zone))

    def _read_Interval(self, found):
        left, right, closed = found["of"]
        return pd.Interval(self.read(left), self.read(right), closed)

    def _read_zone(self, found):
        return _zone(found["of"])

    def _read_NA(self, found):
        return pd.NA

    def _read_NaT(self, found):
        return pd.NaT

    def _read_class(self, found):
        return TIMES[found["of"]]

    def _read_dtype(self, found):
        return np.dtype(found["of"])

    def _read_category(self, found):
        levels = None
        if found["of"] is not None:
            dtype = self.read(found["of"]["dtype"])
            levels = pd.Index(self.read(found["of"]["of"]), dtype=dtype)
        return pd.CategoricalDtype(levels, ordered=found["ordered"])

    def _read_string(self, found):
        na = {} if found["na"] == "NA" else {"na_value": np.nan}
        try:
            return pd.StringDtype(found["of"], **na)
        except ImportError:  # without pyarrow pandas holds text by itself
            return pd.StringDtype("python", **na)
        except TypeError:  # pandas before 2.3 has text of this kind as objects
            return np.dtype(object)

    # Dtypes of libraries that are not installed are of no use: nothing is written in
    # them, since no table of theirs can come in.
    def _read_pandas(self, found):
        try:
            return pd.api.types.pandas_dtype(found["of"])
        except ImportError:
            return np.dtype(object)

    def _read_arrow(self, found):
        try:
            if found["of"] == "string":
                import pyarrow

                return pyarrow.string()
            dtype = pd.ArrowDtype.construct_from_string(f"{found['of']}[pyarrow]")
        except (ImportError, NameError):  # pandas 2.0 has a NameError there
            return None
        return dtype.pyarrow_dtype

    def _read_arrow_decimal(self, found):
        try:
            import pyarrow
        except ImportError:
            return None
        return getattr(pyarrow, f"decimal{int(found['bits'])}")(*found["with"])

    def _read_arrow_dictionary(self, found):
        try:
            import pyarrow
        except ImportError:
            return None
        parts = self.read(found["index"]), self.read(found["of"])
        return pyarrow.dictionary(*parts, ordered=found["ordered"])

    def _read_arrow_in_pandas(self, found):
        dtype = self.read(found["of"])
        return np.dtype(object) if dtype is None else pd.ArrowDtype(dtype)

    def _read_polars(self, found):
        if found["of"] not in POLARS:
            raise ValueError(f"no dtype of polars: {found['of']}")
        try:
            import polars
        except ImportError:
            return None
        return getattr(polars, found["of"])(*found["with"])


def _parameter(value):
    return None if value is None else nn.Parameter(value)


def _zone(name):
    if name is None or isinstance(name, str):
        return None if name is None else zoneinfo.ZoneInfo(name)
    return datetime.timezone(datetime.timedelta(seconds=name))
