// LSC_HD marks what runs on the host and on the device. LSC_ISA is the inline namespace that keeps the code of one
// instruction set apart: the same header compiled for two of them must not meet in the linker (docs/design/0003).
#pragma once

#if defined(__CUDACC__)
#define LSC_HD __host__ __device__
#else
#define LSC_HD
#endif

#ifndef LSC_ISA
#define LSC_ISA portable
#endif
