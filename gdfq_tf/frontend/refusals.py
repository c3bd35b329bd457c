"""What Keras has and integer networks here have not: one reason for each kind.

Every layer and operation of the installed Kerases is either translated or stands here;
a test tells of those that a new release brings. Names stand here whichever Keras has
them.
"""

from __future__ import annotations

from collections.abc import Mapping

from gdfq_tf.errors import option

_CODE = "it holds code of another framework, which is not run; use layers of Keras"
_BASE = "it is a base of other classes; use one of those"
_TRAINED = (
    "it makes the weights of the layer inside as it is called; put that layer in its "
    "place, with these weights"
)

# Reason -> names of layers. What changes images in training is not here: it is tried.
REFUSED_LAYERS: Mapping[str, str] = {
    "it works over three dimensions; integer kernels here work over two": (
        "AdaptiveAveragePooling3D AdaptiveMaxPooling3D AveragePooling3D Conv3D "
        "Conv3DTranspose Cropping3D GlobalAveragePooling3D GlobalMaxPooling3D "
        "MaxPooling3D SpatialDropout3D UpSampling3D ZeroPadding3D"
    ),
    "it is recurrent, which no integer kernel here is; use convolutions over time": (
        "Bidirectional ConvLSTM1D ConvLSTM2D ConvLSTM3D GRU GRUCell LSTM LSTMCell "
        "SimpleRNN SimpleRNNCell StackedRNNCells"
    ),
    "attention has a softmax in the middle and matrix products of activations, which "
    "no integer kernel here has; use convolutions": (
        "AdditiveAttention Attention GroupedQueryAttention MultiHeadAttention"
    ),
    "it takes text or categories; apply it to the data before the model": (
        "CategoryEncoding DenseFeatures Discretization DynamicLookup HashedCrossing "
        "Hashing IntegerLookup StringLookup TextVectorization"
    ),
    "it takes indices; expected images or signals": (
        "DynamicEmbedding Embedding ReversibleEmbedding"
    ),
    "it takes sound; compute the spectrogram before the model, which takes that": (
        "MelSpectrogram STFTSpectrogram"
    ),
    "it divides by what it measures of each image, for which there is no integer "
    "kernel here; train it with BatchNormalization": (
        "GroupNormalization RMSNormalization UnitNormalization"
    ),
    "this function has no integer kernel here; train it with ReLU or LeakyReLU": (
        "RandomFourierFeatures ThresholdedReLU"
    ),
    "it joins tensors in a way that has no integer kernel here; use Add, Multiply or "
    "Concatenate": "Dot",
    "it moves values in a way that has no integer kernel here; use Reshape": (
        "RepeatVector"
    ),
    "its weights differ from position to position; use Conv1D or Conv2D": (
        "LocallyConnected1D LocallyConnected2D"
    ),
    "it sums over any dimensions; use Dense": "EinsumDense",
    "it hides steps of sequences; cut the data to one length": "Masking",
    "it is a list of layers; put those into the model one by one": "Pipeline",
    _TRAINED: "SpectralNormalization",
    _CODE: "FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper",
    _BASE: "AbstractRNNCell Layer PreprocessingLayer RNN Wrapper",
    "it holds Python code, which is not run unasked; use standard layers instead, or "
    f"pass {option('allow_unsafe', True)}, which runs the code in the file: only if "
    "you trust whoever made it, as it may do whatever you may": "Lambda",
    "it prunes the layer inside while that is trained; pass what "
    "tfmot.sparsity.keras.strip_pruning(model) gives of the model, which loads within "
    "tfmot.sparsity.keras.prune_scope()": "PruneLowMagnitude",
    "it clusters the weights of the layer inside while that is trained; pass what "
    "tfmot.clustering.keras.strip_clustering(model) gives of the model, which loads "
    "within tfmot.clustering.keras.cluster_scope()": (
        "ClusterWeights ClusterWeightsMHA"
    ),
    "it imitates integers, which is done here; pass the network as it was before "
    "tfmot.quantization.keras.quantize_model or quantize_apply": (
        "QuantizeAnnotate QuantizeLayer QuantizeWrapper QuantizeWrapperV2"
    ),
}

# Reason -> names of operations of Keras 3, and of TensorFlow functions.
REFUSED_OPERATIONS: Mapping[str, str] = {
    "TFLite's converter leaves it in float; expected a function that it has in "
    "integers: train with elu, gelu or silu instead": (
        "Mish Softplus Softsign tf.math.softplus tf.nn.softsign"
    ),
    "this function has no integer kernel here; use relu, leaky_relu, sigmoid, tanh, "
    "gelu or silu": (
        "Abs Absolute Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Cbrt Ceil "
        "Celu Cos Cosh Deg2rad DivideNoNan Erf Erfc Erfinv Exp Exp2 Expm1 "
        "Fabs Floor FloorDivide Fmod Glu HardShrink HardTanh Heaviside Hypot I0 Ldexp "
        "Log Log10 Log1p Log2 Logaddexp Logaddexp2 Logdet LogSigmoid LogSoftmax "
        "Logsumexp Mod NanToNum Nextafter Polar Power Rad2deg Reciprocal Round Rsqrt "
        "Sign Sin Sinc Sinh SoftShrink Sparsemax SparsePlus "
        "SparseSigmoid Sqrt Square Squareplus Tan TanhShrink Threshold Trunc"
    ),
    "it joins tensors in a way that has no integer kernel here; use add, multiply or "
    "concatenate": (
        "Append ArraySplit Dsplit Dstack Fmax Fmin Hsplit Hstack "
        "Select Stack Unstack Vsplit Vstack Where"
    ),
    "it moves values in a way that has no integer kernel here; use reshape, pad and "
    "slices": (
        "BroadcastTo DepthToSpace Diag Diagflat Diagonal Flip Fliplr "
        "Flipud Fold Meshgrid Ravel Rearrange Repeat Roll Rot90 Scatter "
        "ScatterUpdate Slice SliceUpdate SpaceToDepth Take "
        "TakeAlongAxis Tile Tril Triu Unfold UnravelIndex"
    ),
    "it multiplies activations with each other or with any weights; use Dense or "
    "Conv2D": (
        "CDist Corrcoef Correlate Cross Dot DotProductAttention Einsum Inner Kron "
        "Matmul Outer Tensordot Trapezoid Vander Vdot"
    ),
    "it measures each image, for which there is no integer kernel here; use mean or "
    "max over height and width": (
        "Amax Amin CountNonzero Cumprod Cumsum Diff LayerNorm Median Min Moments "
        "Nancumprod Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod "
        "Nanquantile Nanstd Nansum Nanvar Norm Normalize Percentile Prod Ptp Quantile "
        "RMSNorm Std Sum Trace Var"
    ),
    "weights stand in layers; use the layer of this name": (
        "AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm Conv ConvTranspose "
        "DepthwiseConv MaxPool SeparableConv"
    ),
    "it works on truth values, integers or orders; expected sums and products of real "
    "numbers": (
        "All AllClose Any Argmin Argpartition Argsort Array BinaryCrossentropy "
        "Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr "
        "BitwiseRightShift BitwiseXor CategoricalCrossentropy CTCDecode CTCLoss "
        "Digitize Equal Gcd Histogram InTopK Isclose Isfinite IsIn Isinf Isnan "
        "Isneginf Isposinf Isreal Lcm LeftShift Less LessEqual LogicalAnd LogicalNot "
        "LogicalOr LogicalXor MultiHot Nanargmax Nanargmin Ndim Nonzero NotEqual "
        "OneHot PSNR RightShift SearchSorted SegmentMax SegmentMin SegmentProd "
        "SegmentReduction SegmentSum Signbit Size Sort SparseCategoricalCrossentropy "
        "SSIM Unique"
    ),
    "it makes numbers of nothing; use constants": (
        "Arange ConvertToTensor Copy Empty EmptyLike Eye Full FullLike Geomspace "
        "Linspace Logspace Ones OnesLike SaturateCast StopGradient Tri View Zeros "
        "ZerosLike"
    ),
    "linear algebra has no integer kernel here": (
        "Cholesky CholeskyInverse Det Eig Eigh Inv JVP Lstsq LuFactor MatrixRank Pinv "
        "Qr Slogdet Solve SolveTriangular SVD"
    ),
    "it works on complex numbers or spectra; compute them before the model": (
        "Angle Conj Conjugate ExtractSequences FFT FFT2 IFFT2 Imag IRFFT ISTFT Real "
        "RFFT STFT ViewAsComplex ViewAsReal"
    ),
    "it changes images; do that before the model, or with Resizing, ZeroPadding2D or "
    "Cropping2D": (
        "AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur "
        "HSVToRGB MapCoordinates PadImages PerspectiveTransform Resize RGBToGrayscale "
        "RGBToHSV ScaleAndTranslate SobelEdges"
    ),
    "it decides what to compute; expected a network that computes the same for every "
    "image": (
        "AssociativeScan Cond ForiLoop Function Map Scan Switch VectorizedMap WhileLoop"
    ),
    _BASE: "Operation",
}

_UNKNOWN = (
    "it is no layer or operation that is known here; build the model from those that "
    "docs/networks.md lists"
)
_REASONS = {
    name: reason
    for table in (REFUSED_OPERATIONS, REFUSED_LAYERS)
    for reason, names in table.items()
    for name in names.split()
}


def reason_against(class_name: str) -> str:
    """Why layers or operations of a class that is not translated are refused."""
    return _REASONS.get(class_name, _UNKNOWN)


def is_refused(class_name: str) -> bool:
    """Whether the reason is known."""
    return class_name in _REASONS
