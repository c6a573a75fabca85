#include "kernels/attention/attention.h"

#include "core/parallel.h"
#include "support/gradcheck.h"

namespace tessera {
namespace {
using namespace testing_support;  // NOLINT

struct Sizes {
  Segments q, k;
  std::int64_t heads, width;
  std::vector<std::uint8_t> causal;
};

// Element (token, part, head, d) of q (parts 1), kv (2) or qkv (3).
std::size_t at(std::int64_t token, std::int64_t part, std::int64_t parts, std::int64_t head,
               std::int64_t d, const Sizes& s) {
  return static_cast<std::size_t>(((token * parts + part) * s.heads + head) * s.width + d);
}

template <class Q, class K, class V>
std::vector<double> attend(const Sizes& s, Q q, K k, V v) {
  std::vector<double> out(static_cast<std::size_t>(s.q.total() * s.heads * s.width), 0.0);
  for (int b = 0; b < s.q.count(); ++b) {
    const std::int64_t q0 = s.q.cu_seqlens()[static_cast<std::size_t>(b)],
                       k0 = s.k.cu_seqlens()[static_cast<std::size_t>(b)];
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t i = 0; i < s.q.length(b); ++i) {
        std::int64_t n = s.k.length(b);
        if (!s.causal.empty() && s.causal[static_cast<std::size_t>(b)]) n = std::min(n, i + 1);
        std::vector<double> p;
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) {
          double dot = 0;
          for (std::int64_t d = 0; d < s.width; ++d) dot += q(q0 + i, h, d) * k(k0 + j, h, d);
          p.push_back(std::exp(dot / std::sqrt(static_cast<double>(s.width))));
          sum += p.back();
        }
        for (std::int64_t j = 0; j < n; ++j) {
          for (std::int64_t d = 0; d < s.width; ++d) {
            out[at(q0 + i, 0, 1, h, d, s)] +=
                p[static_cast<std::size_t>(j)] / sum * v(k0 + j, h, d);
          }
        }
      }
    }
  }
  return out;
}

void check_self(const Sizes& s) {
  const DoubleFunction reference = [&](const std::vector<std::vector<double>>& x) {
    const auto part = [&](std::int64_t p) {
      return [&, p](std::int64_t t, std::int64_t h, std::int64_t d) {
        return x[0][at(t, p, 3, h, d, s)];
      };
    };
    return attend(s, part(0), part(1), part(2));
  };
  check_op([&](const auto& x) { return attention(x[0], s.q, {.causal_segments = s.causal}); },
           reference, {random({s.q.total(), 3, s.heads, s.width}, 1)});
}

TEST(Attention, MatchesTheDoubleReferenceOnRaggedSegments) {
  const Segments s({0, 0, 1, 8, 8, 25});
  for (const std::int64_t width : {1, 8, 16, 17}) {
    check_self({s, s, 2, width, {}});
  }
}

TEST(Attention, CausalFlagsActPerSegment) {
  const Segments s({0, 5, 9, 9, 20});
  check_self({s, s, 2, 8, {1, 0, 1, 1}});
}

TEST(Attention, CrossAttentionTakesOneQueryAndAnyNumberOfKeys) {
  const Sizes s{Segments({0, 1, 2, 3}), Segments({0, 4, 4, 9}), 2, 8, {}};
  const DoubleFunction reference = [&](const std::vector<std::vector<double>>& x) {
    const auto q = [&](std::int64_t t, std::int64_t h, std::int64_t d) {
      return x[0][at(t, 0, 1, h, d, s)];
    };
    const auto part = [&](std::int64_t p) {
      return [&, p](std::int64_t t, std::int64_t h, std::int64_t d) {
        return x[1][at(t, p, 2, h, d, s)];
      };
    };
    return attend(s, q, part(0), part(1));
  };
  check_op([&](const auto& x) { return cross_attention(x[0], x[1], s.q, s.k); }, reference,
           {random({3, 2, 8}, 1), random({9, 2, 2, 8}, 2)});
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const Segments s({0, 33});
  const auto y = attention(random({33, 3, 1, 8}, 3, 30.0), s).to_vector<float>();
  for (const float v : y) EXPECT_TRUE(std::isfinite(v));
}

TEST(Attention, NanInOneSegmentReachesNoOther) {
  const Segments s({0, 7, 12, 30});
  Tensor x = random({30, 3, 2, 8}, 4);
  const auto clean = attention(x, s).to_vector<float>();
  fill(x.slice(0, 7, 12), NAN);
  const auto dirty = attention(x, s).to_vector<float>();
  for (std::size_t i = 0; i < clean.size(); ++i) {
    if (i < 7 * 16 || i >= 12 * 16) {
      EXPECT_EQ(clean[i], dirty[i]);
    } else {
      EXPECT_TRUE(std::isnan(dirty[i]));
    }
  }
}

TEST(Attention, IsBitEqualForAnyThreadCount) {
  const Segments s({0, 31, 64, 65, 257});
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    Tensor x = random({257, 3, 2, 16}, 5);
    x.set_requires_grad(true);
    const Tensor y = attention(x, s, {.causal = true}), up = random({257, 2, 16}, 6);
    backward(differentiable(Tensor::scalar(0), {y},
                            [&](std::span<const Tensor>) { return std::vector<Tensor>{up}; }));
    const auto g = x.grad().to_vector<float>();
    if (first.empty()) first = g;
    EXPECT_EQ(g, first);
  }
}

TEST(Attention, RejectsOffsetsThatDoNotCoverTheRows) {
  EXPECT_THROW(attention(random({5, 3, 1, 4}, 1), Segments({0, 4})), Error);
}

}  // namespace
}  // namespace tessera
