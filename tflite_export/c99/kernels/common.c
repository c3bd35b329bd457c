/* Results are rounded as IEEE 754 says, which some options give up. */
#if defined(__FAST_MATH__)
#error "compile without -ffast-math"
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#error "float must be computed as float: on x86 compile with -msse2 -mfpmath=sse"
#endif

/* Shifts of negative values to the right keep the sign, with every compiler known. */
typedef char right_shifts_keep_the_sign[(-1 >> 1) == -1 ? 1 : -1];
