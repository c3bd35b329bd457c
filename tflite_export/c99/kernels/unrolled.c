/* Before a loop of a few constant turns. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#define UNROLLED _Pragma("GCC unroll 16")
#else
#define UNROLLED
#endif
