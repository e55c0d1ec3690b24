// The GPU kernels: one evaluation of (T1), (T5) and of the weighted statistics of (T4), streaming over the rows.
//
// With few statistics a row is read twice and no (N, K) array exists:
//
//   pack         the tiles, transposed, in the unit and order that the other kernels want;
//   encode       a team of threads per handful of rows: log Z_i by an online log-sum-exp over the tiles (T1), and from
//                it the free energy and the expected energy (T5);
//   accumulate   a thread per handful of tiles: m_a = sum_i rho_i q_ia and sum_i rho_i q_ia phi_i, q_ia evaluated anew;
//   collect      the blocks' partial sums, in their order.
//
// With many statistics, phi . v for a block of rows and the weighted sums are matrix products of a library, and
// `encode_products` turns the one into the other.
//
// Nothing is added atomically, and the sizes alone fix who adds what, and in which order: the same bits in every run.
//
// Macros fix at compile time what a kernel holds in registers and shared memory; geometry.py chooses them:
//
//   REAL         float or double: energies, exponentials and their sums over tiles; sums over rows are double
//   STATISTICS   S, for pack, encode, accumulate, collect; 0, for pack, encode_products, collect
//   DIFFERENCES  1: H_ia = lambda ||phi_i - psi_a||^2;   0: H_ia = s_i - b_a - phi_i . v_a   (T4)
//   ROWS, GROUP  encode: rows held by a thread, tiles met at once;     TILES  tiles in shared memory
//   COLUMNS      accumulate: tiles held by a thread;                   STAGE  rows in shared memory
//
// To be compiled with --fmad=false: a product and a sum are fused only where fma says so. Therefore encode and
// accumulate round an energy alike, and 2^(l - t) is exactly 1 at the largest logit t, however large the energies are.
//
// Inside, energies and logits are in bits, H / log 2: the hardware exponentiates to base 2. Free energy and energy leave
// in nats.

using real = REAL;

constexpr int THREADS = 256;         // of a block of encode, encode_products
constexpr int COLUMN_THREADS = 128;  // of a block of accumulate
constexpr int SUMMANDS = 32;         // rows summed in REAL before they are added to a double
constexpr double NATS = 0.693147180559945309417232121458;  // in a bit

// An encoder entry below this, relative to the largest of its row, is exactly zero: exp(-60) for float, exp(-650) for
// double. So such a tile adds exactly nothing to its mass or to the energy, as on the CPU.
__device__ inline float least(float) { return static_cast<float>(-60 / NATS); }
__device__ inline double least(double) { return -650 / NATS; }

// Below every finite logit that occurs; log-sum-exp starts here, where minus infinity would give inf - inf.
__device__ inline float lowest(float) { return -3.4e38f; }
__device__ inline double lowest(double) { return -1.79e308; }

// 2^x for x <= 0; the comparison is such that a NaN stays one.
__device__ inline real power(real x) { return x < least(x) ? real(0) : exp2(x); }

// log-sum-exp of logits l_a met one group after the other, and the sum of costs c_a that goes with it:
// Z = sum_a 2^(l_a - t), C = sum_a 2^(l_a - t) c_a, t the largest logit so far.
struct Sum {
    real t = lowest(real()), Z = 0, C = 0;

    template <int n>
    __device__ void add(const real (&cost)[n], const real (&logit)[n]) {
        real top = t;
        #pragma unroll
        for (int g = 0; g < n; ++g) top = fmax(top, logit[g]);
        if (top > t) {
            const real shrink = exp2(t - top);
            Z *= shrink;
            C *= shrink;
            t = top;
        }
        #pragma unroll
        for (int g = 0; g < n; ++g) {
            const real q = exp2(logit[g] - t);
            Z += q;
            C = fma(q, cost[g], C);
        }
    }

    // Sums over two sets of tiles become the sum over both, with the same bits in both threads.
    __device__ void join(int distance) {
        constexpr unsigned warp = 0xffffffffu;
        const real t2 = __shfl_xor_sync(warp, t, distance);
        const real Z2 = __shfl_xor_sync(warp, Z, distance), C2 = __shfl_xor_sync(warp, C, distance);
        const real top = fmax(t, t2), mine = exp2(t - top), theirs = exp2(t2 - top);
        Z = Z * mine + Z2 * theirs;
        C = C * mine + C2 * theirs;
        t = top;
    }
};

// F = -sum_i rho_i log Z_i and the expected energy (T5), in bits, of the rows that a thread finishes.
struct Totals {
    double free_energy = 0, energy = 0;

    __device__ void add(const Sum& row, double rho, double energy_per_cost) {
        free_energy -= rho * (double(row.t) + log2(double(row.Z)));
        energy += rho * energy_per_cost * (double(row.C) / double(row.Z));
    }

    // The sums over the block, by a tree in shared memory, in nats to out[0], out[1].
    __device__ void write(double* out) const {
        __shared__ double free_energies[THREADS], energies[THREADS];
        const int thread = threadIdx.x;
        free_energies[thread] = free_energy;
        energies[thread] = energy;
        for (int half = THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (thread < half) {
                free_energies[thread] += free_energies[thread + half];
                energies[thread] += energies[thread + half];
            }
        }
        if (thread == 0) {
            out[0] = NATS * free_energies[0];
            out[1] = NATS * energies[0];
        }
    }
};

// Tiles as columns, (words + 1, padded): S coordinates v_a or psi_a (v / divisor), b_a, zeros up to `words`, log pi_a.
// Tiles of prior mass zero, and those that only fill up the array, have log mass minus infinity and all else zero, so
// that no infinity of theirs meets anything.
extern "C" __global__ void pack(
    const long long K, const long long padded, const long long S, const long long words, const real* v, const real* b,
    const real* log_masses, const double divisor, real* tiles
) {
    const long long a = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (a >= padded) return;
    const real nothing = log2(real(0));  // minus infinity
    const real log_mass = a < K ? log_masses[a] : nothing;
    const bool dead = log_mass == nothing;
    for (long long d = 0; d < S; ++d) tiles[d * padded + a] = dead ? real(0) : real(v[a * S + d] / divisor);
    tiles[S * padded + a] = dead ? real(0) : real(b[a] / NATS);
    for (long long d = S + 1; d < words; ++d) tiles[d * padded + a] = 0;
    tiles[words * padded + a] = dead ? nothing : real(log_mass / NATS);
}

// total[d, a] += sum_p partial[p, d, a] for d < height, a < width; a row of `partial` has `padded` columns, and `words`
// rows make one of its P parts. Thread (x, y) of a block sums every 32nd part, then a tree adds up the 32 sums.
template <class Part>
__device__ void collect_parts(
    long long P, long long words, long long padded, long long height, long long width, const Part* partial,
    double* total
) {
    __shared__ double sums[32][33];  // one column more than needed keeps columns in different banks
    const int x = threadIdx.x % 32, y = threadIdx.x / 32;
    const long long column = blockIdx.x * 32LL + x, d = column / width, a = column % width;
    double sum = 0;
    if (d < height) {
        #pragma unroll 4
        for (long long p = y; p < P; p += 32) sum += partial[(p * words + d) * padded + a];
    }
    sums[y][x] = sum;
    for (int half = 16; half > 0; half /= 2) {
        __syncthreads();
        if (y < half) sums[y][x] += sums[y + half][x];
    }
    if (y == 0 && d < height) total[column] += sums[0][x];
}

extern "C" __global__ void __launch_bounds__(1024) collect(
    const long long P, const long long words, const long long padded, const long long height, const long long width,
    const double* partial, double* total
) {
    collect_parts(P, words, padded, height, width, partial, total);
}

#if STATISTICS

constexpr int S = STATISTICS;

struct Tile {
    real y[S], b, log_pi;
};

// What a tile costs a row, c_ia: the energy H_ia in bits (T4), or the squared distance, which is H_ia / lambda.
__device__ inline real cost_of(const real (&x)[S], real s, const Tile& tile) {
#if DIFFERENCES
    const real first = x[0] - tile.y[0];
    real cost = first * first;
    #pragma unroll
    for (int d = 1; d < S; ++d) cost = fma(x[d] - tile.y[d], x[d] - tile.y[d], cost);
#else
    real cost = s - tile.b;
    #pragma unroll
    for (int d = 0; d < S; ++d) cost = fma(-x[d], tile.y[d], cost);
#endif
    return cost;
}

// log pi_a - H_ia.
__device__ inline real logit_of(real cost, const Tile& tile, real lambda) {
    return DIFFERENCES ? fma(-lambda, cost, tile.log_pi) : tile.log_pi - cost;
}

// One row of every 64 or so is a block's; each of its teams, `lanes` threads of one warp, has ROWS rows, and each thread
// of the team meets every lanes-th tile. Writes the largest logit t_i and rho_i / Z_i of every row, and the block's
// share of the free energy and the energy.
extern "C" __global__ void __launch_bounds__(THREADS) encode(
    const long long N, const long long padded, const long long lanes, const real* phi, const real* s,
    const double* rho, const real* tiles, const double lambda, real* reference, real* scale, double* totals
) {
    __shared__ real pass[S + 2][TILES];
    const int stride = lanes, lane = threadIdx.x % stride, team = threadIdx.x / stride;
    const long long rows = THREADS / stride * ROWS;  // of the block
    Totals total;
    for (long long first = blockIdx.x * rows; first < N; first += gridDim.x * rows) {
        real x[ROWS][S], offset[ROWS];
        Sum sum[ROWS];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const long long i = min(first + team * ROWS + r, N - 1);
            #pragma unroll
            for (int d = 0; d < S; ++d) x[r][d] = phi[i * S + d];
            offset[r] = s[i] / real(NATS);
        }
        for (long long start = 0; start < padded; start += TILES) {
            const int count = min(padded - start, (long long)TILES);
            if (padded > TILES || first == blockIdx.x * rows) {  // where all tiles fit, they are there already
                __syncthreads();
                #pragma unroll
                for (int d = 0; d < S + 2; ++d)
                    for (int a = threadIdx.x; a < count; a += THREADS) pass[d][a] = tiles[d * padded + start + a];
                __syncthreads();
            }
            for (int a = lane; a < count; a += GROUP * stride) {
                Tile tile[GROUP];
                #pragma unroll
                for (int g = 0; g < GROUP; ++g) {
                    #pragma unroll
                    for (int d = 0; d < S; ++d) tile[g].y[d] = pass[d][a + g * stride];
                    tile[g].b = pass[S][a + g * stride];
                    tile[g].log_pi = pass[S + 1][a + g * stride];
                }
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    real cost[GROUP], logit[GROUP];
                    #pragma unroll
                    for (int g = 0; g < GROUP; ++g) {
                        cost[g] = cost_of(x[r], offset[r], tile[g]);
                        logit[g] = logit_of(cost[g], tile[g], real(lambda));
                    }
                    sum[r].add(cost, logit);
                }
            }
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r)
            for (int distance = stride / 2; distance > 0; distance /= 2) sum[r].join(distance);
        // Every thread of a team now knows the sums of all its rows; one thread finishes each. It picks its row by a bit,
        // not an index: registers have none.
        for (int done = 0; done < ROWS; done += stride) {
            const int r = done + lane;
            const unsigned bit = r < ROWS ? 1u << r : 0;
            Sum mine;
            #pragma unroll
            for (int n = 0; n < ROWS; ++n) {
                mine.t = bit & 1u << n ? sum[n].t : mine.t;
                mine.Z = bit & 1u << n ? sum[n].Z : mine.Z;
                mine.C = bit & 1u << n ? sum[n].C : mine.C;
            }
            const long long i = first + team * ROWS + r;
            if (bit && i < N) {
                total.add(mine, rho[i], DIFFERENCES ? lambda : 1.0);
                reference[i] = mine.t;
                scale[i] = real(rho[i] / double(mine.Z));
            }
        }
    }
    total.write(totals + 2 * blockIdx.x);
}

// A row as accumulate meets it, read as 16-byte words.
struct alignas(16) Row {
    real x[S];
#if !DIFFERENCES
    real s;
#endif
    real t, scale;  // largest logit; rho_i / Z_i
};

// Block (c, g): the c-th share of the rows, and the g-th set of lanes * COLUMNS tiles. Where the tiles are fewer than the
// threads, the rows of the share are dealt out among `slices` of the block, whose sums a tree adds up.
// Writes partial[c, d, a] = sum_i rho_i q_ia (phi_i, 1)_d over the share.
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS) accumulate(
    const long long N, const long long padded, const long long lanes, const real* phi, const real* s,
    const real* tiles, const double lambda, const real* reference, const real* scale, double* partial
) {
    __shared__ Row stage[STAGE];
    __shared__ double tree[COLUMN_THREADS];
    const int stride = lanes, lane = threadIdx.x % stride, slice = threadIdx.x / stride;
    const int slices = COLUMN_THREADS / stride;
    const long long begin = blockIdx.x * N / gridDim.x, end = (blockIdx.x + 1LL) * N / gridDim.x;
    const long long leftmost = (long long)blockIdx.y * COLUMNS * stride + lane;

    Tile tile[COLUMNS];
    #pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
        const long long a = min(leftmost + c * stride, padded - 1);  // beyond the last: counted, but not written
        #pragma unroll
        for (int d = 0; d < S; ++d) tile[c].y[d] = tiles[d * padded + a];
        tile[c].b = tiles[S * padded + a];
        tile[c].log_pi = tiles[(S + 1) * padded + a];
    }

    double sums[COLUMNS][S + 1] = {};  // the mass last
    for (long long start = begin; start < end; start += STAGE) {
        const int count = min(end - start, (long long)STAGE);
        __syncthreads();
        for (int j = threadIdx.x; j < count; j += COLUMN_THREADS) {
            const long long i = start + j;
            #pragma unroll
            for (int d = 0; d < S; ++d) stage[j].x[d] = phi[i * S + d];
#if !DIFFERENCES
            stage[j].s = s[i] / real(NATS);
#endif
            stage[j].t = reference[i];
            stage[j].scale = scale[i];
        }
        __syncthreads();
        for (int j = slice; j < count; j += SUMMANDS * slices) {
            real part[COLUMNS][S + 1] = {};
            const int stop = min(count, j + SUMMANDS * slices);
            for (int k = j; k < stop; k += slices) {
                const Row row = stage[k];
#if DIFFERENCES
                const real offset = 0;
#else
                const real offset = row.s;
#endif
                #pragma unroll
                for (int c = 0; c < COLUMNS; ++c) {
                    const real x = logit_of(cost_of(row.x, offset, tile[c]), tile[c], real(lambda)) - row.t;
                    if (!(x < least(x))) {
                        const real w = row.scale * exp2(x);  // rho_i q_ia
                        #pragma unroll
                        for (int d = 0; d < S; ++d) part[c][d] = fma(w, row.x[d], part[c][d]);
                        part[c][S] += w;
                    }
                }
            }
            #pragma unroll
            for (int c = 0; c < COLUMNS; ++c)
                #pragma unroll
                for (int d = 0; d <= S; ++d) sums[c][d] += part[c][d];
        }
    }

    #pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
        const long long a = leftmost + c * stride;
        #pragma unroll
        for (int d = 0; d <= S; ++d) {
            double sum = sums[c][d];
            if (slices > 1) {
                __syncthreads();
                tree[threadIdx.x] = sum;
                for (int half = slices / 2; half > 0; half /= 2) {
                    __syncthreads();
                    if (slice < half) tree[threadIdx.x] += tree[threadIdx.x + half * stride];
                }
                sum = tree[lane];
            }
            if (slice == 0 && a < padded) partial[(blockIdx.x * (S + 1LL) + d) * padded + a] = sum;
        }
    }
}

#else

// On entry products[i, a] = phi_i . v_a + b_a in bits; on return rho_i q_ia. A team of `lanes` threads of one warp has a
// row, and meets every lanes-th tile. Rows from n to `rows`, which only fill up the array, become zero.
extern "C" __global__ void __launch_bounds__(THREADS) encode_products(
    const long long n, const long long rows, const long long padded, const long long lanes, const real* s,
    const double* rho, const real* log_masses, real* products, double* totals
) {
    const int stride = lanes, lane = threadIdx.x % stride, team = threadIdx.x / stride;
    const long long teams = THREADS / stride;
    Totals total;
    for (long long first = blockIdx.x * teams; first < rows; first += gridDim.x * teams) {
        const bool real_row = first + team < n;
        const long long i = min(first + team, n - 1);
        real* row = products + min(first + team, rows - 1) * padded;
        const real offset = s[i] / real(NATS);
        Sum sum;
        #pragma unroll 2
        for (long long a = lane; a < padded; a += GROUP * stride) {
            real H[GROUP], logit[GROUP];
            #pragma unroll
            for (int g = 0; g < GROUP; ++g) {
                H[g] = offset - row[a + g * stride];
                logit[g] = log_masses[a + g * stride] - H[g];
            }
            sum.add(H, logit);
        }
        for (int distance = stride / 2; distance > 0; distance /= 2) sum.join(distance);
        if (lane == 0 && real_row) total.add(sum, rho[i], 1.0);
        const real scale = real_row ? real(rho[i] / double(sum.Z)) : real(0);
        if (first + team < rows) {
            #pragma unroll 4
            for (long long a = lane; a < padded; a += stride) {
                const real H = offset - row[a];
                row[a] = real_row ? scale * power((log_masses[a] - H) - sum.t) : real(0);
            }
        }
    }
    total.write(totals + 2 * blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(1024) collect_products(
    const long long P, const long long words, const long long padded, const long long height, const long long width,
    const real* partial, double* total
) {
    collect_parts(P, words, padded, height, width, partial, total);
}

#endif
