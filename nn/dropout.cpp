#include "nn/dropout.h"

#include "kernels/dropout/dropout.h"

namespace tessera {

DropoutStream fork(const DropoutStream& stream, std::string_view place) {
  return stream ? DropoutStream(stream->fork(place)) : stream;
}

DropoutStream fork(const DropoutStream& stream, std::uint64_t index) {
  return stream ? DropoutStream(stream->fork(index)) : stream;
}

Dropout::Dropout(float r) : rate(r) {
  TESSERA_CHECK(r >= 0.0F && r < 1.0F, "dropout: rate must be in [0, 1), got {}", r);
}

// A default stream would draw the same mask in every step, and nobody would notice.
RngKey Dropout::key(const DropoutStream& stream) const {
  TESSERA_CHECK(stream || active_rate() == 0.0F,
                "dropout: a rate of {} in training mode needs a random stream, got none", rate);
  return stream ? stream->key() : RngKey{};
}

Tensor Dropout::operator()(const Tensor& x, const DropoutStream& stream) const {
  return dropout(x, active_rate(), key(stream));
}

}  // namespace tessera
