/* How two tensors of up to four dimensions meet: steps are 0 where one is repeated. */
typedef struct {
  int32_t sizes[4], first[4], second[4];
} broadcast_t;
