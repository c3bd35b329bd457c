#if defined(__SOFTFP__) || defined(MODEL_NO_FLOAT)
#define NO_FLOATS 1

static int32_t num_bits(uint32_t value) {
#if defined(__GNUC__)
  return value ? 32 - __builtin_clz(value) : 0;
#else
  int32_t bits = 0;
  for (; value; value >>= 1) {
    ++bits;
  }
  return bits;
#endif
}

/* Without an arithmetic unit for floats, the sum times a float32 multiplier in
   integers: the sum is rounded to the 24 bits of a float, then the product, then what
   comes of it to an integer, ties to even. */
static int32_t scale(int32_t sum, float multiplier) {
  uint32_t bits, size = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum;
  uint32_t part, rest, half;
  uint64_t product;
  int32_t exponent, shift, result;
  memcpy(&bits, &multiplier, sizeof bits);
  exponent = (int32_t)(bits >> 23) - 126; /* of a mantissa below 1 */
  shift = 24 - num_bits(size);
  exponent -= shift;
  if (shift >= 0) {
    size <<= shift;
  } else {
    part = size >> -shift;
    rest = size & (((uint32_t)1 << -shift) - 1);
    half = (uint32_t)1 << (-shift - 1);
    size = part + (rest > half || (rest == half && (part & 1)));
  }
  product = (uint64_t)size * ((bits & 0x7FFFFF) | 0x800000);
  if (!(product >> 47)) {
    product <<= 1;
    --exponent;
  }
  part = (uint32_t)(product >> 24);
  rest = (uint32_t)product & 0xFFFFFF;
  part += rest > 0x800000 || (rest == 0x800000 && (part & 1));
  /* The result is part * 2^exponent. */
  if (exponent >= 0) {
    result = 1 << 24; /* beyond all bounds */
  } else if (exponent < -26) {
    result = 0;
  } else {
    const uint32_t whole = part >> -exponent;
    rest = part & (((uint32_t)1 << -exponent) - 1);
    half = (uint32_t)1 << (-exponent - 1);
    result = (int32_t)(whole + (rest > half || (rest == half && (whole & 1))));
  }
  return sum < 0 ? -result : result;
}
#endif
