/* reference.py's arithmetic in C: the same functions on the same arrays, equal to the bit.
 *
 * So every float32 operation rounds on its own, in numpy's order; the build says -ffp-contract=off.
 * There are hardly any intrinsics: short loops over one block that any compiler turns into vector
 * instructions, and on x86-64 with gcc more copies of each kernel, for AVX2 and SSE4.1, one of
 * which is chosen when loaded.  Arrays may be unaligned.  Sizes and types are checked before
 * anything is touched (TypeError, ValueError), and the GIL is released while a kernel runs. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE__) && !defined(PLAIN)
#include <xmmintrin.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "for little-endian machines; others compute with numpy"
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(PLAIN)
#define KERNEL static __attribute__((target_clones("avx2", "sse4.1", "default")))
#define VECTOR (__builtin_cpu_supports("avx2") ? "avx2" : "")
#else
#define KERNEL static
#define VECTOR ""
#endif
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep") /* the same array twice is fine, shifted ones are not */
#endif

#define UNROLLED _Pragma("GCC unroll 9") /* which clang understands too */

enum { BLOCK = 64, HALF = 32, CODED = 33, LANES = 32, LAYERS = 3, MEDIAN_MAX = 9, BUFFERS_MAX = 8 };

#define UNALIGNED __attribute__((aligned(1), may_alias))
typedef float UNALIGNED f32;
typedef double UNALIGNED f64;
typedef uint32_t UNALIGNED u32;
typedef int32_t UNALIGNED i32;
typedef int16_t UNALIGNED i16;
typedef uint16_t UNALIGNED u16;
typedef float four __attribute__((vector_size(16)));
typedef float eight __attribute__((vector_size(32)));

static const uint32_t WEYL = 2654435769u;
static const int8_t CHECK_WEIGHTS[BLOCK] = {
    -61, 91, -55, 111, -5, -1, -113, 23, 17, 115, -127, 73, -87, -99, 81, 95,
    43, -107, -41, -119, -31, -101, -83, -67, 21, -105, -89, -29, 19, 123, 53, -9,
    117, -51, 7, -13, -33, -109, -125, 65, 35, 11, 97, -47, 71, 69, 103, -3,
    -75, -37, -121, 27, 79, -77, 85, 25, -15, 57, -45, 59, -93, -39, -49, -63,
};

static Py_ssize_t blocks_in(Py_ssize_t length) { return length / BLOCK + (length % BLOCK != 0); }

INLINE uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* |value|'s bits, which are ordered as the floats are; NaN's come last. */
INLINE int32_t size_of(float value) { return (int32_t)(bits_of(value) & 0x7FFFFFFF); }

/* --- codes ---------------------------------------------------------------------------------- */

/* q = floor(x / D + U) of a block, and 0 for what is no number below 2**30; whether there was none. */
INLINE bool quantise(const f32 *x, float inverse, uint32_t start, int32_t *q)
{
    float scaled[BLOCK];
    int32_t most = 0;
    for (uint32_t i = 0; i < BLOCK; i++)
        scaled[i] = (float)(int32_t)((start + i * WEYL) >> 8) * 0x1p-24f + x[i] * inverse;
    for (int i = 0; i < BLOCK; i++)
        most = size_of(scaled[i]) > most ? size_of(scaled[i]) : most;
    bool wild = most >= size_of(0x1p30f);
    if (wild)
        for (int i = 0; i < BLOCK; i++)
            scaled[i] = size_of(scaled[i]) < size_of(0x1p30f) ? scaled[i] : 0.0f;
    for (int i = 0; i < BLOCK; i++)
        scaled[i] = __builtin_floorf(scaled[i]);
    for (int i = 0; i < BLOCK; i++)
        q[i] = (int32_t)scaled[i];
    return !wild;
}

INLINE bool encode_block(const f32 *x, float inverse, uint32_t start, int shift, uint8_t *out)
{
    int32_t q[BLOCK];
    uint16_t bits[BLOCK], check = 0; /* a layer needs 12 of them */
    uint8_t low[BLOCK];
    bool tame = quantise(x, inverse, start, q);
    for (int i = 0; i < BLOCK; i++)
        bits[i] = (uint16_t)(q[i] >> shift);
    for (int i = 0; i < BLOCK; i++)
        low[i] = (uint8_t)(bits[i] & 15);
    for (int i = 0; i < HALF; i++)
        out[i] = (uint8_t)(low[i] | (uint8_t)(low[i + HALF] << 4));
    for (int i = 0; i < BLOCK; i++)
        check = (uint16_t)(check + (uint32_t)(bits[i] >> 4) * (uint16_t)CHECK_WEIGHTS[i]);
    out[HALF] = (uint8_t)check;
    return tame;
}

/* Asks for a block, which may be past the end: that is no access. */
INLINE void fetch(const f32 *x)
{
    for (int line = 0; line < 4; line++)
        __builtin_prefetch((const void *)((uintptr_t)x + (uintptr_t)line * 64));
}

/* Asks for the block 16 further on.  Of its own accord the processor asks too late while so much is
 * computed on each element: a quarter of the time went by waiting. */
INLINE void fetch_ahead(const f32 *x)
{
    fetch((const f32 *)((uintptr_t)x + 16 * BLOCK * sizeof(float)));
}

KERNEL bool encode(const f32 *x, Py_ssize_t length, const f32 *inverse, const u32 *starts,
                   int shift, uint8_t *out)
{
    Py_ssize_t whole = length / BLOCK, rest = length % BLOCK;
    bool tame = true;
    for (Py_ssize_t b = 0; b < whole; b++) {
        fetch_ahead(x + b * BLOCK);
        if (shift == 0) /* known here, as it mostly is */
            tame &= encode_block(x + b * BLOCK, inverse[b], starts[b], 0, out + b * CODED);
        else
            tame &= encode_block(x + b * BLOCK, inverse[b], starts[b], shift, out + b * CODED);
    }
    if (rest) {
        float padded[BLOCK] = {0};
        memcpy(padded, x + whole * BLOCK, (size_t)rest * sizeof(float));
        tame &= encode_block(padded, inverse[whole], starts[whole], shift, out + whole * CODED);
    }
    return tame;
}

INLINE void unpack(const uint8_t *codes, uint8_t *out)
{
    for (int i = 0; i < HALF; i++)
        out[i] = codes[i] & 15;
    for (int i = 0; i < HALF; i++)
        out[i + HALF] = codes[i] >> 4;
}

/* Bytes throughout: twice as many at a time as in 16 bits. */
INLINE bool decode_block(const uint8_t *mine, const uint8_t *theirs, uint8_t *difference,
                         i32 *energy, i16 *peak)
{
    uint8_t own[BLOCK], k8[BLOCK], nibble[BLOCK], size[BLOCK], turn[BLOCK]; /* k8 is k + 8 */
    unpack(mine, own);
    unpack(theirs, k8);
    for (int i = 0; i < BLOCK; i++)
        k8[i] = (uint8_t)((k8[i] - own[i] + 8) & 15);
    for (int i = 0; i < BLOCK; i++)
        nibble[i] = k8[i] ^ 8;
    for (int i = 0; i < HALF; i++)
        difference[i] = (uint8_t)(nibble[i] | (uint8_t)(nibble[i + HALF] << 4));
    for (int i = 0; i < BLOCK; i++)
        size[i] = (uint8_t)(k8[i] > 8 ? k8[i] - 8 : 8 - k8[i]);
    uint16_t squares = 0;
    for (int i = 0; i < BLOCK; i++)
        squares = (uint16_t)(squares + (uint16_t)(size[i] * size[i]));
    uint8_t most = 0, least = 15, check = mine[HALF];
    for (int i = 0; i < BLOCK; i++)
        most = size[i] > most ? size[i] : most;
    for (int i = 0; i < BLOCK; i++)
        least = k8[i] < least ? k8[i] : least;
    /* The carry of own + k into q div 16 is 1 from 16 on and -1 below 0. */
    for (int i = 0; i < BLOCK; i++)
        own[i] = (uint8_t)(own[i] + k8[i]);
    for (int i = 0; i < BLOCK; i++)
        turn[i] = own[i] > 23 ? (uint8_t)CHECK_WEIGHTS[i] : 0;
    for (int i = 0; i < BLOCK; i++)
        turn[i] = (uint8_t)(turn[i] - (own[i] < 8 ? (uint8_t)CHECK_WEIGHTS[i] : 0));
    for (int i = 0; i < BLOCK; i++)
        check = (uint8_t)(check + turn[i]);
    *energy = squares;
    *peak = most;
    return least == 0 || check != theirs[HALF];
}

KERNEL void decode(const uint8_t *mine, const uint8_t *theirs, uint8_t *difference, i32 *energy,
                   i16 *peak, bool *doubtful, Py_ssize_t blocks)
{
    for (Py_ssize_t b = 0; b < blocks; b++)
        doubtful[b] = decode_block(mine + b * CODED, theirs + b * CODED, difference + b * HALF,
                                   energy + b, peak + b);
}

INLINE bool decode_block_further(const int32_t *q, int shift, const uint8_t *theirs, i16 *k)
{
    uint8_t nibble[BLOCK];
    int32_t found[BLOCK], half = 8 << shift, known = (1 << shift) - 1, least = 0, check = 0;
    unpack(theirs, nibble);
    for (int i = 0; i < BLOCK; i++) {
        int32_t other = (int32_t)nibble[i] << shift | ((q[i] + k[i]) & known);
        found[i] = ((other - q[i] + half) & (2 * half - 1)) - half;
    }
    for (int i = 0; i < BLOCK; i++)
        k[i] = (int16_t)found[i];
    for (int i = 0; i < BLOCK; i++)
        least = found[i] < least ? found[i] : least;
    for (int i = 0; i < BLOCK; i++)
        check += ((q[i] + found[i]) >> (shift + 4) & 255) * CHECK_WEIGHTS[i];
    return least == -half || (uint8_t)check != theirs[HALF];
}

KERNEL void decode_further(const f32 *x, Py_ssize_t blocks, const f32 *inverse, const u32 *starts,
                           const uint8_t *theirs, i16 *k, bool *doubtful, int shift)
{
    for (Py_ssize_t b = 0; b < blocks; b++) {
        int32_t q[BLOCK];
        quantise(x + b * BLOCK, inverse[b], starts[b], q);
        doubtful[b] = decode_block_further(q, shift, theirs + b * CODED, k + b * BLOCK);
    }
}

/* moves = weight (D k) of a block. */
INLINE void moves_of(const uint8_t *difference, float step, float weight, float *moves)
{
    for (int i = 0; i < HALF; i++) {
        uint32_t code = difference[i]; /* its low half is k mod 16 */
        moves[i] = (float)((int32_t)(code << 28) >> 28) * step * weight;
        moves[i + HALF] = (float)((int32_t)(code << 24) >> 28) * step * weight;
    }
}

/* Writes a block that this processor will not read soon: past its caches, which spares reading it
 * first. */
INLINE void put_away(f32 *out, const float *values)
{
#if defined(__SSE__) && !defined(PLAIN)
    if (((uintptr_t)out & 15) == 0) {
        for (int i = 0; i < BLOCK; i += 4)
            _mm_stream_ps((float *)out + i, _mm_loadu_ps(values + i));
        return;
    }
#endif
    memcpy(out, values, BLOCK * sizeof(float));
}

/* All that was put away is there for others to read. */
INLINE void all_away(void)
{
#if defined(__SSE__) && !defined(PLAIN)
    _mm_sfence();
#endif
}

/* Like x, ``out`` may be any of the arrays that a kernel reads. */
INLINE void apply_block(const f32 *x, f32 *out, f32 *increment, const float *moves)
{
    float after[BLOCK], gained[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        after[i] = x[i] + moves[i];
        gained[i] = after[i] - x[i];
    }
    if (out == x)
        memcpy(out, after, sizeof after);
    else
        put_away(out, after);
    if (increment != NULL)
        put_away(increment, gained);
}

/* Of the last block, which has ``count`` elements. */
INLINE void apply_rest(const f32 *x, f32 *out, f32 *increment, const float *moves,
                       int count)
{
    for (int i = 0; i < count; i++) {
        float before = x[i];
        out[i] = before + moves[i];
        if (increment != NULL)
            increment[i] = (before + moves[i]) - before;
    }
}

KERNEL void apply(const uint8_t *difference, const f32 *steps, float weight, const f32 *x, f32 *out,
                  f32 *increment, Py_ssize_t length)
{
    Py_ssize_t whole = length / BLOCK, rest = length % BLOCK;
    float moves[BLOCK];
    for (Py_ssize_t b = 0; b < whole + (rest != 0); b++) {
        Py_ssize_t at = b * BLOCK;
        fetch_ahead(x + at);
        moves_of(difference + b * HALF, steps[b], weight, moves);
        f32 *to = increment == NULL ? NULL : increment + at;
        if (b < whole)
            apply_block(x + at, out + at, to, moves);
        else
            apply_rest(x + at, out + at, to, moves, (int)rest);
    }
    all_away();
}

/* --- blocks --------------------------------------------------------------------------------- */

typedef struct {
    float moved, finest, largest;
} Scaling;

KERNEL void own_scales(const f32 *sizes, const f32 *movement, const f32 *typical, f32 *out,
                       Py_ssize_t blocks, Scaling by)
{
    INDEPENDENT
    for (Py_ssize_t b = 0; b < blocks; b++) {
        float scale = movement[b] * by.moved, least = sizes[b] * by.finest;
        scale = typical[b] > scale ? typical[b] : scale;
        scale = scale > least ? scale : least;
        out[b] = scale < by.largest ? scale : by.largest;
    }
}

KERNEL void pack(const u32 *scales, u16 *out, Py_ssize_t blocks)
{
    INDEPENDENT
    for (Py_ssize_t b = 0; b < blocks; b++)
        out[b] = (uint16_t)((scales[b] + 0xFFFFu) >> 16);
}

KERNEL bool unpack_scales(const u16 *packed, u32 *out, Py_ssize_t blocks, long largest)
{
    uint32_t beyond = 0;
    INDEPENDENT
    for (Py_ssize_t b = 0; b < blocks; b++) {
        uint32_t scale = packed[b];
        out[b] = scale << 16;
        beyond |= (uint32_t)((long)scale > largest);
    }
    return !beyond;
}

typedef struct {
    float per_scale, smallest;
    unsigned int seed;
} Gauge;

KERNEL void grid(const f32 *scales, f32 *steps, f32 *inverse, u32 *starts, Py_ssize_t blocks,
                 Gauge by)
{
    INDEPENDENT
    for (Py_ssize_t b = 0; b < blocks; b++) {
        float scale = scales[b], step = scale * by.per_scale, turned = 1.0f / step;
        steps[b] = scale >= by.smallest ? step : 0.0f;
        inverse[b] = scale >= by.smallest ? turned : 0.0f;
        starts[b] = (uint32_t)b * (BLOCK * WEYL) + by.seed;
    }
}

/* What reading layer 0 told of each block. */
typedef struct {
    const i32 *energy;
    const i16 *peak;
    const bool *doubtful;
    const f32 *steps;
} Told;

INLINE void outcome_row(Told told, const f32 *most, f32 *largest, double *sums, float edge,
                        Py_ssize_t at, int count)
{
    int16_t peak[LANES] = {0};
    int32_t energy[LANES] = {0};
    uint8_t doubtful[LANES] = {0};
    float steps[LANES] = {0}, bound[LANES] = {0}, reach[LANES];
    memcpy(peak, told.peak + at, (size_t)count * sizeof *peak);
    memcpy(energy, told.energy + at, (size_t)count * sizeof *energy);
    memcpy(doubtful, told.doubtful + at, (size_t)count);
    memcpy(steps, told.steps + at, (size_t)count * sizeof *steps);
    memcpy(bound, most + at, (size_t)count * sizeof *bound);
    for (int i = 0; i < LANES; i++) {
        float size = (float)peak[i] > 0.5f ? (float)peak[i] : 0.5f;
        size = (doubtful[i] ? edge : size) * steps[i];
        reach[i] = size < bound[i] ? size : bound[i];
    }
    for (int i = 0; i < LANES; i++)
        sums[i] += (double)energy[i] * (double)steps[i] * (double)steps[i];
    memcpy(largest + at, reach, (size_t)count * sizeof *reach);
}

KERNEL void outcome(Told told, const f32 *most, f32 *largest, f64 *lanes, float edge,
                    Py_ssize_t blocks)
{
    Py_ssize_t whole = blocks / LANES * LANES, at = 0;
    double sums[LANES] = {0};
    for (; at < whole; at += LANES)
        outcome_row(told, most, largest, sums, edge, at, LANES);
    outcome_row(told, most, largest, sums, edge, at, (int)(blocks - at));
    memcpy(lanes, sums, sizeof sums);
}

KERNEL void undone(const f32 *x, Py_ssize_t length, const u32 *rows, const f32 *began,
                   const f32 *differences, Py_ssize_t count, f64 *lanes)
{
    double ahead[BLOCK] = {0}, squares[BLOCK] = {0};
    for (Py_ssize_t r = 0; r < count; r++) {
        Py_ssize_t at = (Py_ssize_t)rows[r] * BLOCK;
        if (r + 8 < count)
            fetch(x + (Py_ssize_t)rows[r + 8] * BLOCK);
        size_t here = (size_t)(length - at < BLOCK ? length - at : BLOCK);
        float part[BLOCK] = {0};
        memcpy(part, x + at, here * sizeof(float));
        for (int i = 0; i < BLOCK; i++) {
            double way = part[i] - began[r * BLOCK + i];
            ahead[i] += way * differences[r * BLOCK + i];
            squares[i] += way * way;
        }
    }
    memcpy(lanes, ahead, sizeof ahead);
    memcpy(lanes + BLOCK, squares, sizeof squares);
}

/* --- vectors -------------------------------------------------------------------------------- */

INLINE float sized(int32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float largest(const f32 *a, const f32 *b, int count)
{
    int32_t most = 0;
    for (int i = 0; i < count; i++) {
        int32_t size = size_of(b == NULL ? a[i] : a[i] - b[i]);
        most = size > most ? size : most;
    }
    return sized(most);
}

KERNEL void block_max(const f32 *a, const f32 *b, Py_ssize_t length, f32 *out)
{
    Py_ssize_t whole = length / BLOCK * BLOCK, at = 0;
    if (b == NULL)
        for (; at < whole; at += BLOCK)
            *out++ = largest(a + at, NULL, BLOCK);
    for (; at < whole; at += BLOCK)
        *out++ = largest(a + at, b + at, BLOCK);
    if (at < length)
        *out = largest(a + at, b == NULL ? NULL : b + at, (int)(length - at));
}

KERNEL bool is_finite(const u32 *bits, Py_ssize_t length)
{
    enum { PART = 4096 };
    for (Py_ssize_t first = 0; first < length; first += PART) {
        Py_ssize_t stop = length - first < PART ? length : first + PART;
        uint32_t bad = 0;
        for (Py_ssize_t i = first; i < stop; i++)
            bad |= (uint32_t)((bits[i] & 0x7F800000u) == 0x7F800000u);
        if (bad)
            return false;
    }
    return true;
}

KERNEL void add_difference(f32 *x, const f32 *new, const f32 *old, Py_ssize_t length, float weight)
{
    INDEPENDENT
    for (Py_ssize_t i = 0; i < length; i++)
        x[i] += (new[i] - old[i]) * weight;
}

INLINE void progress_block(f32 *x, f32 *learner, const f32 *snapshot, f32 *movement, int count)
{
    float moved[BLOCK];
    int32_t most = 0;
    for (int i = 0; i < count; i++)
        moved[i] = snapshot[i] - learner[i];
    for (int i = 0; i < count; i++)
        x[i] += moved[i];
    for (int i = 0; i < count; i++)
        most = size_of(moved[i]) > most ? size_of(moved[i]) : most;
    *movement += sized(most);
    memcpy(learner, snapshot, (size_t)count * sizeof(float));
}

KERNEL void progress(f32 *x, f32 *learner, const f32 *snapshot, Py_ssize_t length, f32 *movement)
{
    Py_ssize_t whole = length / BLOCK * BLOCK, at = 0;
    for (; at < whole; at += BLOCK)
        progress_block(x + at, learner + at, snapshot + at, movement++, BLOCK);
    if (at < length)
        progress_block(x + at, learner + at, snapshot + at, movement, (int)(length - at));
}

INLINE void follow_block(const f32 *x, const f32 *snapshot, f32 *movement, f32 *sizes, int count)
{
    *movement += largest(snapshot, x, count);
    *sizes = largest(snapshot, NULL, count);
}

KERNEL void follow(const f32 *x, const f32 *snapshot, Py_ssize_t length, f32 *movement, f32 *sizes)
{
    Py_ssize_t whole = length / BLOCK * BLOCK, at = 0;
    for (; at < whole; at += BLOCK) {
        fetch_ahead(x + at);
        fetch_ahead(snapshot + at);
        follow_block(x + at, snapshot + at, movement++, sizes++, BLOCK);
    }
    if (at < length)
        follow_block(x + at, snapshot + at, movement, sizes, (int)(length - at));
}

/* The sum of squares, halves upon halves. */
INLINE float energy_of(const float *x)
{
    enum { WIDTH = 8, COUNT = BLOCK / WIDTH };
    eight parts[COUNT];
    UNROLLED
    for (int i = 0; i < COUNT; i++) {
        memcpy(&parts[i], x + i * WIDTH, sizeof(eight));
        parts[i] *= parts[i];
    }
    UNROLLED
    for (int half = COUNT / 2; half; half /= 2)
        UNROLLED
        for (int i = 0; i < half; i++)
            parts[i] += parts[i + half];
    four sums[2];
    memcpy(sums, parts, sizeof sums);
    four sum = sums[0] + sums[1];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

typedef struct {
    float alpha, gamma;
} Nesterov;

/* What the step moves, and what it leaves: of one block, or of all. */
typedef struct {
    f32 *slow, *momentum, *sizes, *energies, *movement;
} State;

INLINE bool step_block(const f32 *x, const f32 *learner, State state, f32 *out, const float *moves,
                       Nesterov step)
{
    float after[BLOCK], gained[BLOCK];
    int32_t farthest = 0, most = 0;
    uint32_t changed = 0;
    INDEPENDENT
    for (int i = 0; i < BLOCK; i++) {
        float slow = state.slow[i], here = x[i];
        int32_t way = size_of(here - slow);
        float moved = (moves == NULL ? here : here + moves[i]) - slow;
        float speed = state.momentum[i] * step.alpha + moved;
        float next = slow + (moved + step.alpha * speed) * step.gamma;
        float gain = next - learner[i];
        farthest = way > farthest ? way : farthest;
        most = size_of(next) > most ? size_of(next) : most;
        changed |= bits_of(gain);
        state.momentum[i] = speed;
        state.slow[i] = after[i] = next;
        gained[i] = gain;
    }
    *state.movement = sized(farthest);
    *state.sizes = sized(most);
    *state.energies = energy_of(after);
    if (out != NULL)
        put_away(out, gained);
    return out != NULL && changed << 1 != 0; /* the sign of a zero does not count */
}

/* Of the last block, which has ``count`` elements. */
INLINE bool step_rest(const f32 *x, const f32 *learner, State state, f32 *out, float *moves,
                      int count, Nesterov step)
{
    float at[BLOCK] = {0}, slow[BLOCK] = {0}, momentum[BLOCK] = {0}, known[BLOCK] = {0}, gained[BLOCK];
    size_t bytes = (size_t)count * sizeof(float);
    memcpy(at, x, bytes);
    memcpy(slow, state.slow, bytes);
    memcpy(momentum, state.momentum, bytes);
    memcpy(known, learner, bytes);
    for (int i = count; moves != NULL && i < BLOCK; i++)
        moves[i] = 0;
    State padded = {slow, momentum, state.sizes, state.energies, state.movement};
    bool changed = step_block(at, known, padded, out == NULL ? NULL : gained, moves, step);
    memcpy(state.slow, slow, bytes);
    memcpy(state.momentum, momentum, bytes);
    if (out != NULL)
        memcpy(out, gained, bytes);
    return changed;
}

KERNEL bool outer_step(const f32 *x, State state, const f32 *learner, Py_ssize_t length,
                       const uint8_t *difference, const f32 *steps, float weight, f32 *out,
                       Nesterov step)
{
    Py_ssize_t whole = length / BLOCK, rest = length % BLOCK;
    bool changed = false;
    float moves[BLOCK];
    for (Py_ssize_t b = 0; b < whole + (rest != 0); b++) {
        Py_ssize_t at = b * BLOCK;
        State block = {state.slow + at, state.momentum + at, state.sizes + b, state.energies + b,
                       state.movement + b};
        f32 *to = out == NULL ? NULL : out + at;
        fetch_ahead(x + at);
        fetch_ahead(block.slow);
        fetch_ahead(block.momentum);
        if (difference != NULL)
            moves_of(difference + b * HALF, steps[b], weight, moves);
        if (b == whole)
            changed |= step_rest(x + at, learner + at, block, to, difference == NULL ? NULL : moves,
                                 (int)rest, step);
        else if (difference == NULL)
            changed |= step_block(x + at, learner + at, block, to, NULL, step);
        else
            changed |= step_block(x + at, learner + at, block, to, moves, step);
    }
    all_away();
    return changed;
}

KERNEL bool subtract(const f32 *a, const f32 *b, f32 *out, Py_ssize_t length)
{
    uint32_t changed = 0;
    INDEPENDENT
    for (Py_ssize_t i = 0; i < length; i++) {
        float difference = a[i] - b[i];
        out[i] = difference;
        changed |= (uint32_t)(difference != 0.0f);
    }
    return changed != 0;
}

enum { WIDTH = 8 }; /* columns that registers hold */

/* The middle one of ``count`` rows by selection sort, of WIDTH columns or fewer.  Bits of numbers that
 * are not negative are ordered as they are, and compared in half the time. */
INLINE void middle(const f32 *rows, Py_ssize_t count, Py_ssize_t columns, f32 *out, int width)
{
    int32_t sorted[MEDIAN_MAX][WIDTH] = {{0}};
    UNROLLED
    for (Py_ssize_t row = 0; row < count; row++)
        memcpy(sorted[row], rows + row * columns, (size_t)width * sizeof(float));
    UNROLLED
    for (Py_ssize_t rank = 0; rank <= count / 2; rank++)
        UNROLLED
        for (Py_ssize_t other = rank + 1; other < count; other++) {
            int32_t less[WIDTH], more[WIDTH];
            for (int i = 0; i < WIDTH; i++) {
                less[i] = sorted[rank][i] < sorted[other][i] ? sorted[rank][i] : sorted[other][i];
                more[i] = sorted[rank][i] < sorted[other][i] ? sorted[other][i] : sorted[rank][i];
            }
            memcpy(sorted[rank], less, sizeof less);
            memcpy(sorted[other], more, sizeof more);
        }
    memcpy(out, sorted[count / 2], (size_t)width * sizeof(float));
}

KERNEL void median(const f32 *rows, Py_ssize_t count, Py_ssize_t columns, f32 *out)
{
    Py_ssize_t whole = columns / WIDTH * WIDTH, at = 0;
    for (; at < whole; at += WIDTH)
        if (count == MEDIAN_MAX) /* known here, so that it all unrolls: a third of the time */
            middle(rows + at, MEDIAN_MAX, columns, out + at, WIDTH);
        else
            middle(rows + at, count, columns, out + at, WIDTH);
    middle(rows + at, count, columns, out + at, (int)(columns - at));
}

INLINE void squares_row(const f32 *a, const f32 *b, double *sums, int count)
{
    for (int i = 0; i < count; i++) {
        double value = b == NULL ? a[i] : a[i] - b[i];
        sums[i] += value * value;
    }
}

KERNEL void squares(const f32 *a, const f32 *b, Py_ssize_t length, f64 *lanes)
{
    Py_ssize_t whole = length / LANES * LANES, at = 0;
    double sums[LANES] = {0};
    if (b == NULL)
        for (; at < whole; at += LANES)
            squares_row(a + at, NULL, sums, LANES);
    for (; at < whole; at += LANES)
        squares_row(a + at, b + at, sums, LANES);
    squares_row(a + at, b == NULL ? NULL : b + at, sums, (int)(length - at));
    memcpy(lanes, sums, sizeof sums);
}

/* --- Python --------------------------------------------------------------------------------- */

/* The arguments of one call that are buffers; all are contiguous. */
typedef struct {
    Py_buffer view[BUFFERS_MAX];
    int count;
} Buffers;

static PyObject *done(Buffers *taken, PyObject *result)
{
    while (taken->count)
        PyBuffer_Release(&taken->view[--taken->count]);
    return result;
}

static PyObject *wrong_size(Buffers *taken)
{
    PyErr_SetString(PyExc_ValueError, "buffers whose sizes do not fit together");
    return done(taken, NULL);
}

/* Takes a buffer for each letter of kinds (its item's format in struct's notation); access has r,
 * w or, where None may stand for it, o (read) and p (written).  The scalars come after the buffers. */
static bool take(Buffers *taken, PyObject *const *args, Py_ssize_t given, const char *kinds,
                 const char *access, int scalars)
{
    int buffers = (int)strlen(kinds);
    taken->count = 0;
    if (given != buffers + scalars) {
        PyErr_Format(PyExc_TypeError, "%d arguments are needed, not %zd", buffers + scalars, given);
        return false;
    }
    for (int i = 0; i < buffers; i++) {
        Py_buffer *view = &taken->view[i];
        bool writes = strchr("wp", access[i]) != NULL, optional = strchr("op", access[i]) != NULL;
        int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writes ? PyBUF_WRITABLE : 0);
        if (optional && args[i] == Py_None) {
            memset(view, 0, sizeof *view); /* which PyBuffer_Release leaves alone */
            taken->count++;
            continue;
        }
        if (PyObject_GetBuffer(args[i], view, flags) < 0) {
            PyErr_Format(PyExc_TypeError, "argument %d is no contiguous%s buffer", i + 1,
                         writes ? " and writable" : "");
            done(taken, NULL);
            return false;
        }
        taken->count++;
        const char *format = view->format == NULL ? "B" : view->format;
        format += strchr("=<@", format[0]) != NULL; /* alike on a little-endian machine */
        if (format[0] != kinds[i] || format[1] != '\0') {
            PyErr_Format(PyExc_TypeError, "argument %d has items of format '%s', not '%c'", i + 1,
                         view->format, kinds[i]);
            done(taken, NULL);
            return false;
        }
    }
    return true;
}

static Py_ssize_t items(const Buffers *taken, int i)
{
    return taken->view[i].itemsize ? taken->view[i].len / taken->view[i].itemsize : 0;
}

static bool absent(const Buffers *taken, int i) { return taken->view[i].obj == NULL; }

#define TAKE(kinds, access, scalars)                                                               \
    Buffers taken;                                                                                 \
    (void)self;                                                                                    \
    if (!take(&taken, args, given, kinds, access, scalars))                                        \
        return NULL
#define BUFFER(i) taken.view[i].buf
#define ITEMS(i) items(&taken, i)
#define NEED(condition)                                                                            \
    if (!(condition))                                                                              \
    return wrong_size(&taken)
#define SCALAR(name, i)                                                                            \
    float name = (float)PyFloat_AsDouble(args[i]);                                                 \
    if (PyErr_Occurred())                                                                          \
    return done(&taken, NULL)
#define LAYER(name, i)                                                                             \
    long name = PyLong_AsLong(args[i]);                                                            \
    if (name == -1 && PyErr_Occurred())                                                            \
        return done(&taken, NULL);                                                                 \
    NEED(0 <= name && name < LAYERS)
#define RUN(call)                                                                                  \
    Py_BEGIN_ALLOW_THREADS;                                                                        \
    call;                                                                                          \
    Py_END_ALLOW_THREADS
#define FUNCTION(name)                                                                             \
    static PyObject *py_##name(PyObject *self, PyObject *const *args, Py_ssize_t given)

FUNCTION(block_max)
{
    TAKE("fff", "row", 0);
    NEED(absent(&taken, 1) || ITEMS(1) == ITEMS(0));
    NEED(ITEMS(2) == blocks_in(ITEMS(0)));
    RUN(block_max(BUFFER(0), BUFFER(1), ITEMS(0), BUFFER(2)));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(encode)
{
    TAKE("ffIB", "rrrw", 1);
    Py_ssize_t blocks = blocks_in(ITEMS(0));
    NEED(ITEMS(1) == blocks && ITEMS(2) == blocks && ITEMS(3) == blocks * CODED);
    LAYER(layer, 4);
    bool tame;
    RUN(tame = encode(BUFFER(0), ITEMS(0), BUFFER(1), BUFFER(2), 4 * (int)layer, BUFFER(3)));
    return done(&taken, PyBool_FromLong(tame));
}

FUNCTION(decode)
{
    TAKE("BBBih?", "rrwwww", 0);
    Py_ssize_t blocks = ITEMS(3);
    NEED(ITEMS(0) == blocks * CODED && ITEMS(1) == blocks * CODED && ITEMS(2) == blocks * HALF);
    NEED(ITEMS(4) == blocks && ITEMS(5) == blocks);
    RUN(decode(BUFFER(0), BUFFER(1), BUFFER(2), BUFFER(3), BUFFER(4), BUFFER(5), blocks));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(decode_further)
{
    TAKE("ffIBh?", "rrrrww", 1);
    Py_ssize_t blocks = ITEMS(1);
    NEED(ITEMS(0) == blocks * BLOCK && ITEMS(2) == blocks && ITEMS(3) == blocks * CODED);
    NEED(ITEMS(4) == blocks * BLOCK && ITEMS(5) == blocks);
    LAYER(layer, 6);
    RUN(decode_further(BUFFER(0), blocks, BUFFER(1), BUFFER(2), BUFFER(3), BUFFER(4), BUFFER(5),
                       4 * (int)layer));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(apply)
{
    TAKE("Bffff", "rrrwp", 1);
    Py_ssize_t blocks = blocks_in(ITEMS(2));
    NEED(ITEMS(0) == blocks * HALF && ITEMS(1) == blocks && ITEMS(3) == ITEMS(2));
    NEED(absent(&taken, 4) || ITEMS(4) == ITEMS(2));
    SCALAR(weight, 5);
    RUN(apply(BUFFER(0), BUFFER(1), weight, BUFFER(2), BUFFER(3), BUFFER(4), ITEMS(2)));
    return done(&taken, Py_NewRef(Py_None));
}

/* The numbers that come last, as a tuple. */
#define TUPLE(place, format, ...)                                                                  \
    if (!PyTuple_Check(args[place])) {                                                             \
        PyErr_SetString(PyExc_TypeError, "the numbers are no tuple");                              \
        return done(&taken, NULL);                                                                 \
    }                                                                                              \
    if (!PyArg_ParseTuple(args[place], format, __VA_ARGS__))                                       \
    return done(&taken, NULL)

FUNCTION(own_scales)
{
    TAKE("ffff", "rrrw", 1);
    Py_ssize_t blocks = ITEMS(0);
    NEED(ITEMS(1) == blocks && ITEMS(2) == blocks && ITEMS(3) == blocks);
    Scaling by;
    TUPLE(4, "fff", &by.moved, &by.finest, &by.largest);
    RUN(own_scales(BUFFER(0), BUFFER(1), BUFFER(2), BUFFER(3), blocks, by));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(pack)
{
    TAKE("fH", "rw", 0);
    NEED(ITEMS(1) == ITEMS(0));
    RUN(pack(BUFFER(0), BUFFER(1), ITEMS(0)));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(unpack)
{
    TAKE("Hf", "rw", 1);
    NEED(ITEMS(1) == ITEMS(0));
    long largest = PyLong_AsLong(args[2]);
    if (largest == -1 && PyErr_Occurred())
        return done(&taken, NULL);
    bool fits;
    RUN(fits = unpack_scales(BUFFER(0), BUFFER(1), ITEMS(0), largest));
    return done(&taken, PyBool_FromLong(fits));
}

FUNCTION(grid)
{
    TAKE("fffI", "rwww", 1);
    Py_ssize_t blocks = ITEMS(0);
    NEED(ITEMS(1) == blocks && ITEMS(2) == blocks && ITEMS(3) == blocks);
    Gauge by;
    TUPLE(4, "ffI", &by.per_scale, &by.smallest, &by.seed);
    RUN(grid(BUFFER(0), BUFFER(1), BUFFER(2), BUFFER(3), blocks, by));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(outcome)
{
    TAKE("ih?fffd", "rrrrrww", 1);
    Py_ssize_t blocks = ITEMS(0);
    NEED(ITEMS(1) == blocks && ITEMS(2) == blocks && ITEMS(3) == blocks && ITEMS(4) == blocks);
    NEED(ITEMS(5) == blocks && ITEMS(6) == LANES);
    SCALAR(edge, 7);
    Told told = {BUFFER(0), BUFFER(1), BUFFER(2), BUFFER(3)};
    RUN(outcome(told, BUFFER(4), BUFFER(5), BUFFER(6), edge, blocks));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(undone)
{
    TAKE("fIffd", "rrrrw", 0);
    Py_ssize_t blocks = blocks_in(ITEMS(0)), count = ITEMS(1);
    const u32 *rows = BUFFER(1);
    NEED(ITEMS(2) == count * BLOCK && ITEMS(3) == count * BLOCK && ITEMS(4) == 2 * BLOCK);
    for (Py_ssize_t r = 0; r < count; r++)
        NEED(rows[r] < blocks);
    RUN(undone(BUFFER(0), ITEMS(0), rows, BUFFER(2), BUFFER(3), count, BUFFER(4)));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(is_finite)
{
    TAKE("f", "r", 0);
    bool found;
    RUN(found = is_finite(BUFFER(0), ITEMS(0)));
    return done(&taken, PyBool_FromLong(found));
}

FUNCTION(add_difference)
{
    TAKE("fff", "wrr", 1);
    NEED(ITEMS(1) == ITEMS(0) && ITEMS(2) == ITEMS(0));
    SCALAR(weight, 3);
    RUN(add_difference(BUFFER(0), BUFFER(1), BUFFER(2), ITEMS(0), weight));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(progress)
{
    TAKE("ffff", "wwrw", 0);
    NEED(ITEMS(1) == ITEMS(0) && ITEMS(2) == ITEMS(0) && ITEMS(3) == blocks_in(ITEMS(0)));
    RUN(progress(BUFFER(0), BUFFER(1), BUFFER(2), ITEMS(0), BUFFER(3)));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(follow)
{
    TAKE("ffff", "rrww", 0);
    NEED(ITEMS(1) == ITEMS(0) && ITEMS(2) == blocks_in(ITEMS(0)) && ITEMS(3) == ITEMS(2));
    RUN(follow(BUFFER(0), BUFFER(1), ITEMS(0), BUFFER(2), BUFFER(3)));
    return done(&taken, Py_NewRef(Py_None));
}

/* A pair of buffers comes as one argument: a tuple of both, or None. */
FUNCTION(outer_step)
{
    enum { PAIR = 5, GIVEN = 8 };
    PyObject *flat[GIVEN + 1];
    bool none = given == GIVEN && args[PAIR] == Py_None;
    if (given != GIVEN ||
        !(none || (PyTuple_Check(args[PAIR]) && PyTuple_GET_SIZE(args[PAIR]) == 2))) {
        PyErr_SetString(PyExc_TypeError, "8 arguments are needed, the codes a pair or None");
        return NULL;
    }
    for (int i = 0; i < GIVEN + 1; i++)
        flat[i] = args[i < PAIR ? i : i - 1];
    flat[PAIR] = none ? Py_None : PyTuple_GET_ITEM(args[PAIR], 0);
    flat[PAIR + 1] = none ? Py_None : PyTuple_GET_ITEM(args[PAIR], 1);
    args = flat;
    given++;
    TAKE("fffffBff", "rwwowoop", 1);
    Py_ssize_t blocks = blocks_in(ITEMS(0));
    NEED(ITEMS(1) == ITEMS(0) && ITEMS(2) == ITEMS(0) && ITEMS(4) == 3 * blocks);
    NEED(absent(&taken, 3) || ITEMS(3) == ITEMS(0));
    NEED(absent(&taken, 5) == absent(&taken, 6));
    NEED(absent(&taken, 5) || (ITEMS(5) == blocks * HALF && ITEMS(6) == blocks));
    NEED(absent(&taken, 7) || ITEMS(7) == ITEMS(0));
    float weight;
    Nesterov step;
    TUPLE(8, "fff", &weight, &step.alpha, &step.gamma);
    f32 *sums = BUFFER(4);
    State state = {BUFFER(1), BUFFER(2), sums, sums + blocks, sums + 2 * blocks};
    const f32 *learner = absent(&taken, 3) ? BUFFER(0) : BUFFER(3);
    bool changed;
    RUN(changed = outer_step(BUFFER(0), state, learner, ITEMS(0), BUFFER(5), BUFFER(6), weight,
                             BUFFER(7), step));
    return done(&taken, PyBool_FromLong(changed));
}

FUNCTION(subtract)
{
    TAKE("fff", "rrw", 0);
    NEED(ITEMS(1) == ITEMS(0) && ITEMS(2) == ITEMS(0));
    bool changed;
    RUN(changed = subtract(BUFFER(0), BUFFER(1), BUFFER(2), ITEMS(0)));
    return done(&taken, PyBool_FromLong(changed));
}

FUNCTION(median)
{
    TAKE("ff", "rw", 0);
    Py_ssize_t columns = ITEMS(1), count = columns ? ITEMS(0) / columns : 0;
    NEED(ITEMS(0) == count * columns && count <= MEDIAN_MAX && (count > 0 || columns == 0));
    RUN(median(BUFFER(0), count, columns, BUFFER(1)));
    return done(&taken, Py_NewRef(Py_None));
}

FUNCTION(squares)
{
    TAKE("ffd", "row", 0);
    NEED((absent(&taken, 1) || ITEMS(1) == ITEMS(0)) && ITEMS(2) == LANES);
    RUN(squares(BUFFER(0), BUFFER(1), ITEMS(0), BUFFER(2)));
    return done(&taken, Py_NewRef(Py_None));
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    METHOD(block_max), METHOD(encode),     METHOD(decode),   METHOD(apply),   METHOD(is_finite),
    METHOD(progress),  METHOD(outer_step), METHOD(subtract), METHOD(squares), METHOD(median),
    METHOD(add_difference), METHOD(decode_further), METHOD(follow), METHOD(own_scales),
    METHOD(pack), METHOD(unpack), METHOD(grid), METHOD(outcome), METHOD(undone),
    {NULL, NULL, 0, NULL},
};

/* Grows with every change of what a function takes or does; native.py has the same number. */
enum { INTERFACE = 8 };

static int set_up(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "VECTOR", VECTOR);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, set_up}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernels", "The functions of reference.py, in C.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&definition); }
