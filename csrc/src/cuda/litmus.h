// Whether a device keeps what cuda/ordering.h promises, by trying.
#pragma once

#include "cuda/execution.h"

namespace lsc::cuda {

// What is counted, in this order.
enum class Litmus {
  message_passing,           // a value that was not seen though its flag was: 0 where the promise is kept
  store_buffering,           // both of two threads that wrote, fenced and read missed what the other wrote: 0
  unfenced_store_buffering,  // the same without the fence, which nothing forbids: more than 0 shows that the test can
                             // see it
  grid_barrier,              // a value from before a grid barrier that was not seen after it: 0
};
inline constexpr int kLitmusCounts = 4;

// counts [kLitmusCounts] in device memory <- what was seen in `rounds` rounds of `pairs` pairs of blocks, which all
// have to be resident: pairs <= half of the multiprocessors. rounds < 2^30.
void litmus(Execution& execution, Index pairs, Index rounds, unsigned long long* counts);

}  // namespace lsc::cuda
