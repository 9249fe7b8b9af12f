"""`ClassSpace`: a model, its class embedding and its preprocessing, ready to trace images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from classspace_widgets.images import Prepared, Preprocessing, prepare, prepare_input
from classspace_widgets.lens.lens import ClassLens, LiveLens
from classspace_widgets.lookup import class_index
from classspace_widgets.models import adapt
from classspace_widgets.models.backbone import Backbone
from classspace_widgets.models.build import build_timm
from classspace_widgets.models.convert.take import take
from classspace_widgets.models.device import to_device
from classspace_widgets.models.names import given_names, names_of, wordnet_ids
from classspace_widgets.models.placing import device_of, placed
from classspace_widgets.space import passes
from classspace_widgets.space.describe import one_class_text, space_html, space_text
from classspace_widgets.space.verify import verify
from classspace_widgets.trace.hooks import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from torch import Tensor, nn

    from classspace_widgets.fitting.classifier import ClassifierFit
    from classspace_widgets.images.crop import Crop
    from classspace_widgets.lens import FittedLens
    from classspace_widgets.models.words import Words
    from classspace_widgets.points import Points
    from classspace_widgets.space.passes import T
    from classspace_widgets.space.streaming import StreamReadings
    from classspace_widgets.trace import Trace
    from classspace_widgets.trace.hooks import Choice

__all__ = ["ClassSpace"]


class ClassSpace:
    """A vision transformer read in its own class embedding space.

    Parameters
    ----------
    model : nn.Module
        A timm vision transformer, in whatever state the caller keeps it.  It is used as it is and left as it was:
        mode, flags, hooks and random state.  Where another ``device`` or ``dtype`` is asked for, a copy is moved.  A
        compiled or replicated model is taken without its wrapper.  Hooks are on the model during a pass, so passes
        of several threads wait for one another.
    device : str
        ``"auto"`` (where the model is), or anything that torch takes.
    dtype : torch.dtype, optional
        Of the forward pass; readings are float32 whatever it is.
    class_names : sequence of str, optional
        Names of the C classes; by default from the model's timm configuration.
    class_embedding : Tensor [C, D], optional
        Read through this matrix instead of the classifier, for instance zero-shot text embeddings for a CLIP tower
        (``[C, D']`` of the joint space where the model's head is the projection to it).
    class_bias : Tensor [C], optional
        Bias that goes with ``class_embedding``.
    class_norm : str
        What comes before ``class_embedding``: ``"final"`` (the model's final norm), ``"none"``, or ``"pool"`` (the norm and
        the module by which the model pools its tokens: for features of SigLIP, for instance of its text).
    mean, std : float, or one for each channel, optional
        How pictures are normalised, ``(pixel - mean) / std`` with pixels in 0..1; by default as the model's timm
        configuration says.  For a model without one ImageNet's are assumed, and the first picture is met with a warning.
    crop : float, optional
        Share of the resized picture's sides that the centre crop keeps, in (0, 1]; by default likewise.
    image_size : int, or height and width, optional
        Of the model's input, in pixels; by default what the model was built for.
    name : str
        For display.
    check : bool
        Run one pass to check the identities that readings rest on (about one forward pass).

    Raises
    ------
    UnsupportedModelError
        Where the class embedding space is not well defined, with the reason and what to do.

    Examples
    --------
    >>> space = ClassSpace.from_timm("test_vit", pretrained=False)
    >>> trace = space.trace(torch.zeros(1, 3, 160, 160))
    >>> trace.logits("residual", trace.n_blocks, classes=["goldfish"]).shape  # [B, T, K]
    torch.Size([1, 101, 1])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        class_names: Sequence[str] | None = None,
        class_embedding: Tensor | np.ndarray[Any, Any] | None = None,
        class_bias: Tensor | np.ndarray[Any, Any] | None = None,
        class_norm: str = "final",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        crop: float | None = None,
        image_size: int | Sequence[int] | None = None,
        name: str = "",
        check: bool = True,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module, got {type(model).__name__}; ClassSpace.from_timm takes a name"
            )
        if class_bias is not None and class_embedding is None:
            raise ValueError("class_bias goes with class_embedding; without one the model's own classifier is read")
        embedding = None if class_embedding is None else torch.as_tensor(class_embedding)
        bias = None if class_bias is None else torch.as_tensor(class_bias)
        taken = take(model, image_size=image_size)
        model = taken.model
        if embedding is None:
            taken.require_classes()
        adapt(model, class_embedding=embedding, class_bias=bias, class_norm=class_norm)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise ValueError(
                f"{type(model).__name__} is on the meta device, so it has no weights to read; load them first, "
                "for instance model.to_empty(device='cpu') and model.load_state_dict(weights)"
            )
        model = placed(model, device_of(device, model), dtype)
        self.adapter = adapter = adapt(model, class_embedding=embedding, class_bias=bias, class_norm=class_norm)
        self.model = model
        parameter = adapter.embedding
        self.device, self.dtype = parameter.device, parameter.dtype
        self.live_lens = adapter.make_lens()
        self._second_lens = LiveLens(adapter.norm, adapter.second_weights) if adapter.pooling == "distilled" else None
        count = parameter.shape[0]
        own = embedding is None
        class_names = taken.names or None if class_names is None and own else class_names
        self.class_names = names_of(model, count, own=own) if class_names is None else given_names(class_names, count)
        config = getattr(self.adapter.model, "pretrained_cfg", None) or {}
        self.name = name or str(config.get("architecture") or type(self.adapter.model).__name__)
        self.origin = taken.origin
        self.words: Words | None = None
        self.fitted: ClassifierFit | None = None
        self.backbone: Backbone | None = None
        mean, std = taken.mean if mean is None else mean, taken.std if std is None else std
        self.preprocessing = Preprocessing.of(self.adapter.model, mean=mean, std=std, crop=crop, image_size=image_size)
        if count == 1:
            warnings.warn(one_class_text(adapter, self.name), stacklevel=2)
        self.identities = self.check() if check else {}

    def __repr__(self) -> str:
        return space_text(self)

    def _repr_html_(self) -> str:
        return space_html(self)

    @classmethod
    def from_timm(
        cls,
        name: str,
        *,
        pretrained: bool = True,
        checkpoint: str | PathLike[str] | None = None,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        class_names: Sequence[str] | None = None,
        class_embedding: Tensor | np.ndarray[Any, Any] | None = None,
        class_bias: Tensor | np.ndarray[Any, Any] | None = None,
        class_norm: str = "final",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        crop: float | None = None,
        image_size: int | Sequence[int] | None = None,
        **options: Any,
    ) -> ClassSpace:
        """A timm model by name.

        Parameters
        ----------
        name : str
            For instance ``"vit_base_patch16_224"``.
        pretrained : bool
            With timm's published weights (downloaded) or fresh ones.
        checkpoint : path, optional
            Local weights instead: safetensors, or a torch file, which is read with ``weights_only=True``.  They may be nested,
            prefixed, and stand beside an optimizer, a loss or settings; averaged weights (EMA) come first, and
            position embeddings of another grid are resampled as timm does.
        device, dtype, class_names, class_embedding, class_bias, class_norm, mean, std, crop
            As in `ClassSpace`; ``device="auto"`` is CUDA where there is one.
        image_size : int, or height and width, optional
            The model is built for pictures of this size (timm's ``img_size``).
        **options
            For ``timm.create_model``: ``num_classes``, ``img_size``, ...

        Returns
        -------
        ClassSpace

        Raises
        ------
        ValueError
            For an unknown name (with close matches), or a checkpoint that does not fit.
        RuntimeError
            Where weights cannot be downloaded, with what to do.

        Examples
        --------
        >>> ClassSpace.from_timm("vit_bse_patch16_224")
        Traceback (most recent call last):
        ValueError: ... close matches: vit_base_patch16_224, ...
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if image_size is not None:
            wanted = image_size if isinstance(image_size, int) else tuple(image_size)
            if options.setdefault("img_size", wanted) != wanted:
                raise ValueError(f"image_size={image_size} and img_size={options['img_size']} say two things; give one")
        model = build_timm(name, pretrained=pretrained, checkpoint=checkpoint, options=options)
        made = cls(
            model.eval(),
            device=device,
            dtype=dtype,
            class_names=class_names,
            class_embedding=class_embedding,
            class_bias=class_bias,
            class_norm=class_norm,
            mean=mean,
            std=std,
            crop=crop,
            image_size=image_size,
            name=name,
        )
        file = "" if checkpoint is None else Path(checkpoint).name
        made.backbone = Backbone("timm", name, options, pretrained and not file, file)
        return made

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        *,
        num_heads: int | None = None,
        device: str | torch.device = "auto",
        **options: Any,
    ) -> ClassSpace:
        """A model of Hugging Face, from a local folder or the hub; or published weights of DINO, MAE or DeiT from a file.

        ViT, DeiT, BEiT, DINOv2, DINOv3, CLIP and SigLIP of transformers are converted into timm's equal models and
        compared with the original (see `models.convert.convert`).  Names of classes come from ``id2label``, the
        preprocessing from ``preprocessor_config.json``.

        Parameters
        ----------
        source : path or str
            A folder with ``config.json`` and ``model.safetensors``, a name such as ``"google/vit-base-patch16-224"``, or a
            ``.pth`` or ``.safetensors`` file.
        num_heads : int, optional
            Attention heads of the model in a single file of weights, where its width is not one that was published.
        device : str
            ``"auto"`` is CUDA where there is one.
        **options
            As in `ClassSpace`: ``class_names``, ``class_embedding``, ``image_size``, ...

        Returns
        -------
        ClassSpace

        Raises
        ------
        ImportError
            Where transformers is needed and not installed.
        FileNotFoundError, ValueError, RuntimeError
            For a model that is not there, not complete, or cannot be downloaded, with what to do.

        Examples
        --------
        >>> ClassSpace.from_pretrained("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: there is no folder or file at /no/such/folder; ...
        """
        from classspace_widgets.models.convert.pretrained import load_pretrained

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        made = cls(load_pretrained(source, num_heads=num_heads), device=device, **options)
        made.backbone = Backbone("pretrained", str(source), {} if num_heads is None else {"num_heads": num_heads})
        return made

    @classmethod
    def fit(
        cls,
        backbone: nn.Module | str | PathLike[str],
        data: Any,
        *,
        checkpoint: str | PathLike[str] | None = None,
        image_size: int | Sequence[int] | None = None,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        features: str = "auto",
        pretrained: bool = True,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        crop: float | None = None,
        name: str = "",
        batch_size: int = 16,
        workers: int = 2,
        seed: int = 0,
        progress: bool = True,
        **options: Any,
    ) -> ClassSpace:
        """A backbone without a classifier, or with another one, and a classifier fitted on labelled pictures.

        The backbone's weights stay as they are: its features of all pictures are computed in one pass, and a multinomial
        logistic regression on them is put into the model as its head.  The penalty is the one with the smallest loss in
        cross-validation; what it reads, the first token or the mean of the image tokens, is what is more accurate there.
        The accuracy of the cross-validation is in ``space.fitted`` and in what the space shows of itself.  Five pictures a
        class are few, but enough to look; two are the least.

        Parameters
        ----------
        backbone : nn.Module, or str or path
            A model that `ClassSpace` takes, with or without a classifier, which is not changed; a name of timm; ``"bundled"``; or a
            folder, file or name as `from_pretrained` takes it.
        data : path or data set
            A folder ``root/<class>/<picture>``, or anything else that `studies.run_study` takes.
        checkpoint : path, optional
            Weights for a timm name, as in `from_timm`.
        image_size : int, or height and width, optional
            The model is built for, or resampled to, pictures of this size.
        class_names : sequence or mapping of str, optional
            Names of the data set's classes, in the order of their labels or by label; by default its own.
        features : str
            ``"auto"``, or what the classifier reads: ``"token"`` ([CLS]), ``"mean"`` (of the image tokens), ``"pooled"`` (by the model's
            own module, as in SigLIP), or ``"both"`` ([CLS] beside the mean, which is no linear reading of single tokens:
            heads and sources are refused then).
        pretrained : bool
            For a timm name without a checkpoint: with published weights, or fresh ones.
        device, dtype, mean, std, crop, name
            As in `ClassSpace`.
        batch_size, workers, progress
            As in `probing.fit_probes`.
        seed : int
            Of the parts of the cross-validation.
        **options
            For ``timm.create_model``; ``depth=11`` leaves out the blocks behind the eleventh.

        Returns
        -------
        ClassSpace
            `save` writes what was fitted to a file.

        Raises
        ------
        UnsupportedModelError
            For a model that is no vision transformer, or cannot read its tokens as asked.
        ValueError
            For fewer than two classes, or two pictures of a class; labels with gaps; a checkpoint that does not fit.
        RuntimeError
            Where weights cannot be downloaded, with what to do.

        Examples
        --------
        >>> from classspace_widgets.scenes import make_scene
        >>> scenes = [(make_scene(seed, label=name).picture, number) for seed in range(5)
        ...           for number, name in enumerate(["boat", "fish"])]
        >>> space = ClassSpace.fit("bundled/gap", scenes, class_names=["boat", "fish"], progress=False)
        >>> space.class_names, space.fitted.n_pictures
        (('boat', 'fish'), 10)
        """
        from classspace_widgets.space.fitting import fitted_space

        if device == "auto" and not isinstance(backbone, torch.nn.Module):
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return fitted_space(
            backbone,
            data,
            features=features,
            pretrained=pretrained,
            checkpoint=checkpoint,
            image_size=image_size,
            class_names=class_names,
            fit={"batch_size": batch_size, "workers": workers, "seed": seed, "progress": progress},
            space={"device": device, "dtype": dtype, "mean": mean, "std": std, "crop": crop, "name": name},
            options=options,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the class embedding to a safetensors file, with all that makes a space of it and a backbone again.

        It holds the class embedding, its bias, the names of the classes, the preprocessing, the backbone's name and a hash of
        its weights; not the weights.

        Parameters
        ----------
        path : path
            By habit ``.safetensors``.

        Raises
        ------
        UnsupportedModelError
            For a model with two classifiers.
        """
        from classspace_widgets.space.file import save_space

        save_space(self, path)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        backbone: nn.Module | str | PathLike[str] | None = None,
        *,
        checkpoint: str | PathLike[str] | None = None,
        device: str | torch.device = "auto",
    ) -> ClassSpace:
        """Read a file that `save` wrote, and make its backbone again.

        Parameters
        ----------
        path : path
        backbone : nn.Module, or str or path, optional
            The model, where the file's own name of it does not suffice: a model that was given as a module, or moved.
        checkpoint : path, optional
            Its weights, where it was made with a file of them.
        device : str
            As in `ClassSpace`.

        Returns
        -------
        ClassSpace

        Raises
        ------
        FileNotFoundError, ValueError
            For a file that is not there, is damaged or is no space, or a backbone of other weights.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ClassSpace.bundled("gap").save(f"{folder}/gap.safetensors")
        ...     ClassSpace.load(f"{folder}/gap.safetensors").n_classes
        24
        """
        from classspace_widgets.space.file import load_space

        return load_space(path, backbone, checkpoint=checkpoint, device=device)

    @classmethod
    def from_words(
        cls,
        model: nn.Module | str | PathLike[str],
        names: Sequence[str],
        *,
        tokenizer: Any = None,
        templates: Sequence[str] = ("{}",),
        **options: Any,
    ) -> ClassSpace:
        """A CLIP or SigLIP whose classes are words, read by its own text tower.

        A class is the features of its words, of length 1, times the model's scale.  Such models compare directions: they
        divide the features of a picture by their length, which a reading of single tokens cannot.  So logits are the
        model's times the length of the features, over that of the features of a picture of noise; within a token or a
        picture, ranks and the order of classes are exactly the model's.

        Parameters
        ----------
        model : nn.Module, or path or str
            ``CLIP`` or ``CustomTextCLIP`` of open_clip, ``CLIPModel`` or ``SiglipModel`` of transformers; or a folder or name as
            `from_pretrained` takes it, with its tokenizer.
        names : sequence of str
            Words of the classes: ``["cat", "dog"]`` with templates, or whole sentences.
        tokenizer : callable, optional
            What ``open_clip.get_tokenizer`` or ``transformers.AutoTokenizer.from_pretrained`` return; by default CLIP's for
            open_clip, and the one in the model's folder for transformers.
        templates : sequence of str
            Texts with ``{}`` in the place of the words, such as ``"a photo of a {}"``; a class is the mean of their features.
        **options
            As in `ClassSpace`: ``device``, ``dtype``, ``mean``, ``std``, ``crop``, ``image_size``, ``name``, ``check``.

        Returns
        -------
        ClassSpace
            `with_words` adds classes to it.

        Raises
        ------
        UnsupportedModelError
            For a model without a text tower that is known.
        ValueError
            For words that are empty, given twice or too long, a template without ``{}``, or a tokenizer that is not known.

        Examples
        --------
        >>> from open_clip.model import CLIP
        >>> text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1}
        >>> model = CLIP(16, {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}, text)
        >>> space = ClassSpace.from_words(model, ["cat", "dog"], templates=["a photo of a {}", "a drawing of a {}"])
        >>> space.with_words(["zebra"]).class_names
        ('cat', 'dog', 'zebra')
        """
        from classspace_widgets.space.in_words import space_in_words

        return space_in_words(model, names, tokenizer=tokenizer, templates=templates, **options)

    def with_words(self, names: Sequence[str]) -> ClassSpace:
        """The same space with more classes in words, behind those that it has; only of a space `from_words`.

        The model is shared, and its text tower runs once for each text.  `reread` reads a trace with the new classes.

        Parameters
        ----------
        names : sequence of str
            As in `from_words`, with the same templates; classes that are there already are left out.

        Returns
        -------
        ClassSpace

        Raises
        ------
        ValueError
            Where the space has no text tower, or for words that are empty, given twice or too long.
        """
        from classspace_widgets.space.in_words import with_words

        return with_words(self, names)

    def reread(self, trace: Trace) -> Trace:
        """A trace of the same model read with the classes of this space, without another pass.

        Parameters
        ----------
        trace : Trace
            Of any space of the same model, for instance of the one that `with_words` was called on.

        Returns
        -------
        Trace
            With the tensors of the given one, and the lens, classes and answers of this space.

        Raises
        ------
        ValueError
            For a trace of another model.
        RuntimeError
            For a trace without its model.

        Examples
        --------
        >>> space = ClassSpace.from_timm("test_vit", pretrained=False)
        >>> trace = space.trace(torch.zeros(1, 3, 160, 160))
        >>> other = ClassSpace(space.model, class_embedding=torch.randn(2, 64), class_names=["cat", "dog"])
        >>> other.reread(trace).top_k(1).names.shape
        (1, 101, 1)
        """
        from classspace_widgets.space.in_words import reread

        return reread(self, trace)

    @classmethod
    def bundled(cls, variant: str = "default", *, device: str | torch.device = "auto") -> ClassSpace:
        """A small model that comes with the package, trained on `classspace_widgets.scenes` or on photographs.

        Parameters
        ----------
        variant : str
            Trained on drawn scenes of 24 classes: ``"default"`` ([CLS], token labelling), ``"gap"`` (its twin with global average
            pooling) or ``"contrast"`` ([CLS], one label per picture). Trained on photographs of 82 everyday classes, at 64 pixels:
            ``"photos"`` ([CLS], one label per picture).
        device : str
            ``"auto"`` is CUDA where there is one.

        Returns
        -------
        ClassSpace

        Examples
        --------
        >>> ClassSpace.bundled("gap").n_classes
        24
        >>> ClassSpace.bundled("photos").class_names[:2]
        ('goldfish', 'European fire salamander')
        """
        from classspace_widgets.models.bundled import load_bundled

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        made = cls(load_bundled(variant), device=device, name=f"bundled/{variant}")
        made.backbone = Backbone("bundled", variant)
        return made

    def random_twin(self, seed: int = 0) -> ClassSpace:
        """The same architecture with fresh weights: the control of every measurement.

        The class embedding is fresh too; a foreign ``class_embedding`` has no fresh version and is kept.  So are the gains
        of the residual branches (LayerScale's gamma): they start from a constant near 0, with which a twin's stream
        would stay its embedding; with the model's, its blocks add about as much as the model's do.  A twin whose stream
        hardly moves all the same (of a model that was not trained either) is warned about.

        Parameters
        ----------
        seed : int
            Of the fresh weights; the caller's random state is left alone.

        Returns
        -------
        ClassSpace

        Raises
        ------
        ValueError
            Where the model cannot be copied: a replaced ``forward``, or a hook, holds on to its own modules.

        Warns
        -----
        UserWarning
            Where the twin's stream hardly moves, so that its readings at every block are those of its embedding.

        Examples
        --------
        >>> ClassSpace.bundled().random_twin(seed=1).n_classes
        24
        """
        from classspace_widgets.space.like import random_twin

        return random_twin(self, seed)

    @property
    def lens(self) -> ClassLens:
        """The lens of the model's norm and classifier as they are now: a model may go on learning.

        Raises
        ------
        ValueError
            Where the model has come to have another number of classes.
        """
        lens = self.live_lens()
        if lens.offset.shape[0] != len(self.class_names):
            raise ValueError(
                f"{self.name} had {len(self.class_names)} classes when this ClassSpace was made, now its classifier has "
                f"{lens.offset.shape[0]}; make a new one of the model: ClassSpace(model)"
            )
        return lens

    @property
    def second_lens(self) -> ClassLens | None:
        """The lens of a distilled model's second classifier."""
        return None if self._second_lens is None else self._second_lens()

    @property
    def points(self) -> Points:
        """The numbering of the model's stream points and increments."""
        return self.adapter.points

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return int(self.lens.offset.shape[0])

    @property
    def wordnet_ids(self) -> tuple[str, ...]:
        """WordNet ids of the classes (``"n01443537"``), where they are ImageNet's; else none."""
        return wordnet_ids(self.model, self.class_names)

    def class_index(self, wanted: int | str) -> int:
        """Index of a class given by index or name; an unknown one raises, with close matches.

        Parameters
        ----------
        wanted : int or str

        Returns
        -------
        int
            0..C-1.

        Raises
        ------
        ValueError
            For a class that does not exist, with close matches.

        Examples
        --------
        >>> ClassSpace.bundled().class_index("boat")
        1
        """
        return class_index(self.class_names, wanted)

    def preprocess(self, images: Any) -> tuple[Tensor, np.ndarray[Any, Any] | None, tuple[str, ...]]:
        """Pixels for the model, pictures of what it will see, and names; see `images.prepare`.

        Parameters
        ----------
        images : path, PIL image, ndarray, tensor, or list of them

        Returns
        -------
        tuple
            Pixels ``[B, 3, height, width]``, float32; pictures ``[B, height, width, 3]``, uint8; names of the B images.
        """
        shown = prepare(images, self.preprocessing)
        return shown.pixels.to(self.device, self.dtype), shown.pictures, shown.names

    def pixels(self, images: Any) -> Tensor:
        """Pixels ``[B, 3, height, width]`` for the model, on its device: `preprocess` without the pictures for display.

        Parameters
        ----------
        images : path, PIL image, ndarray, tensor, or list of them

        Returns
        -------
        Tensor [B, 3, height, width]
        """
        return to_device(prepare_input(images, self.preprocessing)[0], self.device, self.dtype)

    def place_mask(self, mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A mask of a picture's own size, cut and scaled as preprocessing does it with the picture.

        What comes out is in the pixels of `Trace.pictures`, as `Trace.snapshot` and `Explorer` take it for ``mask=``.

        Parameters
        ----------
        mask : ndarray [height, width]
            Numbers of objects, 0 for context, as `capture.capture` takes them; of the size of the upright picture.

        Returns
        -------
        ndarray [height, width], uint8
            Of the size that the model sees, with the same numbers.

        Raises
        ------
        ValueError
            If the mask does not have two dimensions, or holds anything but numbers of objects.

        Examples
        --------
        >>> from classspace_widgets.scenes import make_scene
        >>> large = make_scene(3, size=384)
        >>> ClassSpace.bundled().place_mask(large.mask).shape
        (96, 96)
        """
        from classspace_widgets.images.placing import PixelTransform
        from classspace_widgets.masks import as_array, object_numbers

        mask = as_array(mask)
        if mask.ndim != 2 or not mask.size:
            raise ValueError(f"a mask must have shape [height, width], got {list(mask.shape)}")
        return PixelTransform.of(self.preprocessing).mask(object_numbers(mask))

    def trace(
        self,
        images: Any,
        *,
        attention: Choice = False,
        heads: Choice = False,
        keys: Choice = False,
        chunk: int | None = None,
        crop: Crop | None = None,
    ) -> Trace:
        """One forward pass over images, as a `Trace`.

        Parameters
        ----------
        images : path, PIL image, ndarray, tensor, or list of them
            A float tensor ``[B, 3, height, width]`` is taken as ready input; all else is preprocessed as timm says.
        attention : bool, sequence of int, or mapping of int to sequence of int
            Keep attention weights ``[B, H, T, T]``: of all blocks, of some, or of some heads of some blocks.
        heads : bool or sequence of int
            Keep the heads' outputs (and what their values follow from), of all blocks or of some.
        keys : bool or sequence of int
            Keep the MLPs' key coefficients ``[B, T, M]``, of all blocks or of some.
        chunk : int, optional
            Images per forward pass; by default all, and fewer where a GPU's memory does not suffice.
        crop : tuple of float, optional
            Left, top, right, bottom of the part to look at, as shares of the picture's width and height, instead of the
            model's own centre crop.

        Returns
        -------
        Trace

        Examples
        --------
        >>> space = ClassSpace.from_timm("test_vit", pretrained=False)
        >>> space.trace(torch.zeros(2, 3, 160, 160), attention=[6]).attention_weights[6].shape
        torch.Size([2, 2, 101, 101])
        """
        shown = prepare(images, self.preprocessing, crop=crop)
        pixels = shown.pixels.to(self.device, self.dtype)
        keep: passes.Keep = {"attention": attention, "heads": heads, "keys": keys}
        parts = self.in_chunks(pixels, lambda some: passes.run_pass(self, some, **keep), chunk)
        kept = parts[0][0] if len(parts) == 1 else Recording.joined([record for record, _ in parts])
        output = torch.cat([output for _, output in parts])
        return passes.as_trace(self, kept, output, pixels, shown=shown)

    def trace_pixels(
        self,
        pixels: Tensor | Prepared,
        *,
        attention: Choice = False,
        heads: Choice = False,
        keys: Choice = False,
    ) -> Trace:
        """`trace` of ready input ``[B, 3, height, width]`` as it is, in one piece and without pictures for display."""
        ready = self.preprocessing.ready(pixels).to(self.device, self.dtype)
        record, output = passes.run_pass(self, ready, attention=attention, heads=heads, keys=keys)
        return passes.as_trace(self, record, output, ready)

    def stream_readings(self, images: Any, classes: Any = None, **options: Any) -> StreamReadings:
        """Class logit, exact rank and top classes of every stream and token, in one pass; see `streaming`.

        Parameters
        ----------
        images, classes, **options
            As in `stream_readings`.

        Returns
        -------
        StreamReadings
        """
        from classspace_widgets.space.streaming import stream_readings

        return stream_readings(self, images, classes, **options)

    def fit_lens(self, kind: str, pictures: Any, **options: Any) -> FittedLens:
        """Fit a lens on pictures, without labels: maps from every residual stream point to class scores.

        ``"jacobian"`` shows what of a token the answer goes on to use, ``"translator"`` what can be decoded from it; the logit
        lens, which needs no fit, what the classifier would read there.

        Parameters
        ----------
        kind, pictures, **options
            As in `fitting.fit_lens`.

        Returns
        -------
        FittedLens
            For ``trace.logits(..., lens=lens)`` and its like.

        Examples
        --------
        >>> from classspace_widgets.scenes import ScenesDataset
        >>> space = ClassSpace.bundled("contrast")
        >>> lens = space.fit_lens("jacobian", ScenesDataset(8, seed=5), classes=["boat"])
        >>> trace = space.trace(ScenesDataset(1, seed=6)[0][0])
        >>> trace.logits("residual", 3, classes=["boat"], lens=lens).shape
        torch.Size([1, 65, 1])
        """
        from classspace_widgets.fitting import fit_lens

        return fit_lens(self, kind, pictures, **options)

    def bundled_lens(self, kind: str) -> FittedLens:
        """A fitted lens that comes with a bundled model; other models have theirs fitted by `fit_lens`.

        Parameters
        ----------
        kind : str
            ``"jacobian"`` or ``"translator"``.

        Returns
        -------
        FittedLens

        Raises
        ------
        ValueError
            For a model that is not bundled, or an unknown kind.

        Examples
        --------
        >>> ClassSpace.bundled("contrast").bundled_lens("jacobian").question
        'what of this token the answer goes on to use'
        """
        from classspace_widgets.models.bundled import load_bundled_lens

        source, _, variant = self.name.partition("/")
        if source != "bundled":
            raise ValueError(f"no fitted lens comes with {self.name}; fit one: space.fit_lens({kind!r}, pictures)")
        return load_bundled_lens(variant, kind).to(self.device)

    def in_chunks(self, pixels: Tensor, run: Callable[[Tensor], T], chunk: int | None = None) -> list[T]:
        """Run something over a batch in chunks of images; where GPU memory runs out, again in smaller ones."""
        return passes.in_chunks(self, pixels, run, chunk)

    def check(self) -> dict[str, float]:
        """Check the identities that readings rest on, on a noise image; see `verify`.

        Returns
        -------
        dict
            Relative errors: ``"residual"`` (increments against the last residual stream) and ``"output"`` (lens against the
            model's own output, where that is a class reading).

        Raises
        ------
        UnsupportedModelError
            Where an identity does not hold.
        """
        trace, last = passes.trace_noise(self)
        return verify(trace, last, own_output=self.adapter.own_output)


def space_of(trace: Trace) -> ClassSpace:
    """The space that a trace came from; `RuntimeError` where the trace was loaded from a file without it."""
    return cast("ClassSpace", trace.require_space())  # what made the trace: the lower layer knows less of it
