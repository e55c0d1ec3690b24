// The CUDA kernels: one evaluation of (T1), (T5) and of the weighted statistics of (T4), streaming over the rows.
//
// With few statistics every row is read twice, and no (N, K) array exists:
//
//   pack         writes the tiles, transposed, in the units and the order that the other kernels need;
//   encode       has a team of threads per group of rows: log Z_i by an online log-sum-exp over the tiles (T1), hence
//                the free energy and the expected energy (T5);
//   accumulate   has a thread per group of tiles: m_a = sum_i rho_i q_ia and sum_i rho_i q_ia phi_i, where q_ia is
//                computed again;
//   collect      adds the partial sums of all blocks, in the order of the blocks.
//
// With many statistics, the logits of a block of rows and the weighted sums are matrix products of a library. Between
// these products encode_products turns the logits into rho_i q_ia.
//
// There are no atomic additions, and the sizes alone determine which thread adds what, and in which order. So the bits
// are the same in every run.
//
// Units. The hardware exponentiates to base 2, so energies and logits are in bits, H / log 2. Let l_ia be the logit
// log pi_a - H_ia without the terms that are common to its row. Then q_ia = 2^(l_ia - t_i) / Z_i, t_i = max_a l_ia. The
// chain of multiply-adds that computes l_ia starts at c_a and has one step per coordinate of y_a (T4):
//
//   squared distance   c_a = log pi_a         y_a = u psi_a   l_ia = c_a - ||u phi_i - y_a||^2   u^2 = lambda / log 2
//   linear form        c_a = log pi_a + b_a   y_a = v_a       l_ia = c_a + phi_i . y_a           u = 1
//
// In the linear form s_i is common to the row. Free energy and energy are returned in nats.
//
// Rounding. The kernels must be compiled with --fmad=false, so that a product and a sum are fused only where the code
// calls fma. Then encode and accumulate round l_ia in the same way, and 2^(l_ia - t_i) is exactly 1 for the largest
// l_ia, however large the energies are.
//
// Macros fix what a thread holds in registers and a block in shared memory; geometry.py chooses them:
//
//   REAL         float or double: type of logits, exponentials and sums over tiles; sums over many rows are double
//   STATISTICS   S, for pack, encode, accumulate, collect; 0, for pack, encode_products, collect, collect_products
//   DIFFERENCES  1: squared distance; 0: linear form
//   ROWS         rows that a thread of encode holds
//   GROUP        tiles that a thread of encode or encode_products computes at a time
//   TILES        tiles that a block of encode holds in shared memory
//   RESIDENT     blocks of encode whose registers shall fit into a multiprocessor together
//   COLUMNS      tiles that a thread of accumulate holds
//   STAGE        rows that a block of accumulate holds in shared memory

using real = REAL;
using Index = long long;

constexpr int THREADS = 256;  // per block of encode and encode_products
constexpr unsigned WARP = 0xffffffffu;
constexpr double NATS = 0.693147180559945309417232121458;  // in a bit

// An encoder entry that is smaller than this, relative to the largest of its row, is exactly zero: exp(-60) for float,
// exp(-650) for double, as on the CPU. Such a tile adds exactly zero to its mass.
__device__ inline float least(float) { return static_cast<float>(-60 / NATS); }
__device__ inline double least(double) { return -650 / NATS; }

// The log-sum-exp starts at this logit, far below all logits that occur. Twice this value stands for the logit minus
// infinity, since with infinities some difference or product would be NaN.
__device__ inline float lowest(float) { return -1e38f; }
__device__ inline double lowest(double) { return -5e307; }

// Online log-sum-exp of logits l_a, and the sum for the expected energy:
// Z = sum_a 2^(l_a - t), C = sum_a 2^(l_a - t) (log pi_a - l_a), where t is the largest logit so far.
struct Sum {
    real t = lowest(real()), Z = 0, C = 0;

    __device__ void add(const real (&logit)[GROUP], const real (&log_pi)[GROUP]) {
        real top = t;
        #pragma unroll
        for (int g = 0; g < GROUP; ++g) top = fmax(top, logit[g]);
        if (top > t) {
            const real shrink = exp2(t - top);
            Z *= shrink;
            C *= shrink;
            t = top;
        }
        #pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            const real q = exp2(logit[g] - t);
            Z += q;
            C = fma(q, log_pi[g] - logit[g], C);
        }
    }

    // Adds the sums of the threads of a team, each of which has its own tiles. After this butterfly all have the total.
    __device__ void join(int team_size) {
        for (int distance = team_size / 2; distance > 0; distance /= 2) {
            const real t2 = __shfl_xor_sync(WARP, t, distance);
            const real Z2 = __shfl_xor_sync(WARP, Z, distance), C2 = __shfl_xor_sync(WARP, C, distance);
            const real top = fmax(t, t2), mine = exp2(t - top), theirs = exp2(t2 - top);
            Z = Z * mine + Z2 * theirs;
            C = C * mine + C2 * theirs;
            t = top;
        }
    }
};

// F = -sum_i rho_i log Z_i and the expected energy (T5) of the rows that a thread completes, in bits.
struct Totals {
    double free_energy = 0, energy = 0;

    // `common` is the energy that is common to the row and missing in its logits: s_i in the linear form.
    __device__ void add(const Sum& row, double rho, double common) {
        free_energy += rho * (common - double(row.t) - log2(double(row.Z)));
        energy += rho * (common + double(row.C) / double(row.Z));
    }

    // Writes the sums of the block, in nats, to out[0] and out[1]; a tree in shared memory adds them.
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

// Writes the tiles as columns of an array (words + 1, padded): the S coordinates of y_a = v_a / divisor, c_a, zeros up
// to `words`, log pi_a. For a tile of prior mass zero, and for a column that only fills up the array, c_a stands for
// minus infinity and all other entries are zero.
extern "C" __global__ void pack(
    const Index K, const Index padded, const Index S, const Index words, const real* v, const real* b,
    const real* log_masses, const double divisor, const Index differences, real* tiles
) {
    const Index a = blockIdx.x * Index(blockDim.x) + threadIdx.x;
    if (a >= padded) return;
    const bool dead = a >= K || log_masses[a] == log2(real(0));  // minus infinity
    const double log_pi = dead ? 0 : log_masses[a] / NATS;
    const double c = differences || dead ? log_pi : log_pi + b[a] / NATS;
    for (Index d = 0; d < S; ++d) tiles[d * padded + a] = dead ? real(0) : real(v[a * S + d] / divisor);
    tiles[S * padded + a] = dead ? 2 * lowest(real()) : real(c);
    for (Index d = S + 1; d < words; ++d) tiles[d * padded + a] = 0;
    tiles[words * padded + a] = real(log_pi);
}

// Computes total[d, a] += sum_p partial[p, d, a] for d < height, a < width. Each of the P parts is (words, padded). A
// thread sums every 32nd part of an entry; a tree adds the 32 sums.
template <class Part>
__device__ void collect_parts(
    Index P, Index words, Index padded, Index height, Index width, const Part* partial, double* total
) {
    __shared__ double sums[32][33];  // with an additional column, so that a column of sums lies in different banks
    const int x = threadIdx.x % 32, y = threadIdx.x / 32;
    const Index entry = blockIdx.x * Index(32) + x, d = entry / width, a = entry % width;
    double sum = 0;
    if (d < height) {
        #pragma unroll 4
        for (Index p = y; p < P; p += 32) sum += partial[(p * words + d) * padded + a];
    }
    sums[y][x] = sum;
    for (int half = 16; half > 0; half /= 2) {
        __syncthreads();
        if (y < half) sums[y][x] += sums[y + half][x];
    }
    if (y == 0 && d < height) total[entry] += sums[0][x];
}

extern "C" __global__ void __launch_bounds__(1024) collect(
    const Index P, const Index words, const Index padded, const Index height, const Index width,
    const double* partial, double* total
) {
    collect_parts(P, words, padded, height, width, partial, total);
}

#if STATISTICS

constexpr int S = STATISTICS;
constexpr int COLUMN_THREADS = 128;  // per block of accumulate
constexpr int SUMMANDS = 32;         // rows whose q_ia are summed as REAL before the sum is added to a double

// Returns l_ia, from x = u phi_i, y_a and c_a.
__device__ inline real logit_of(const real (&x)[S], const real (&y)[S], real c) {
    #pragma unroll
    for (int d = 0; d < S; ++d) {
#if DIFFERENCES
        const real difference = x[d] - y[d];
        c = fma(-difference, difference, c);
#else
        c = fma(x[d], y[d], c);
#endif
    }
    return c;
}

// Writes the largest logit t_i and rho_i / Z_i of every row, and the contribution of the block to F and the energy.
// A block takes every gridDim.x-th set of rows; each of its teams, `team_size` threads of one warp, has ROWS of a set.
// The tiles pass through shared memory, TILES at a time; a thread of a team takes every team_size-th tile.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) encode(
    const Index N, const Index padded, const Index team_size, const real* phi, const real* s, const double* rho,
    const real* tiles, const double unit, real* reference, real* scale, double* totals
) {
    __shared__ real pass[S + 2][TILES];
    const int size = team_size, lane = threadIdx.x % size, team = threadIdx.x / size;
    const Index rows = THREADS / size * ROWS, start = blockIdx.x * rows;
    Totals total;
    for (Index first = start; first < N; first += gridDim.x * rows) {
        real x[ROWS][S];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const Index i = min(first + team * ROWS + r, N - 1);
            #pragma unroll
            for (int d = 0; d < S; ++d) x[r][d] = phi[i * S + d] * real(unit);
        }

        Sum sum[ROWS];
        for (Index left = 0; left < padded; left += TILES) {
            const int width = min(padded - left, Index(TILES));
            if (padded > TILES || first == start) {  // if all tiles fit, they are loaded once
                __syncthreads();
                for (int a = threadIdx.x; a < width; a += THREADS)
                    #pragma unroll
                    for (int d = 0; d < S + 2; ++d) pass[d][a] = tiles[d * padded + left + a];
                __syncthreads();
            }
            for (int a = lane; a < width; a += GROUP * size) {
                real y[GROUP][S], c[GROUP], log_pi[GROUP];
                #pragma unroll
                for (int g = 0; g < GROUP; ++g) {
                    #pragma unroll
                    for (int d = 0; d < S; ++d) y[g][d] = pass[d][a + g * size];
                    c[g] = pass[S][a + g * size];
                    log_pi[g] = pass[S + 1][a + g * size];
                }
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    real logit[GROUP];
                    #pragma unroll
                    for (int g = 0; g < GROUP; ++g) logit[g] = logit_of(x[r], y[g], c[g]);
                    sum[r].add(logit, log_pi);
                }
            }
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) sum[r].join(size);

        // All threads of a team have the sums of all its rows; one thread completes each row. It selects its row by a
        // bit mask, since registers cannot be indexed.
        for (int done = 0; done < ROWS; done += size) {
            const int r = done + lane;
            const unsigned bit = r < ROWS ? 1u << r : 0;
            Sum row;
            #pragma unroll
            for (int n = 0; n < ROWS; ++n) {
                row.t = bit & 1u << n ? sum[n].t : row.t;
                row.Z = bit & 1u << n ? sum[n].Z : row.Z;
                row.C = bit & 1u << n ? sum[n].C : row.C;
            }
            const Index i = first + team * ROWS + r;
            if (bit && i < N) {
                total.add(row, rho[i], DIFFERENCES ? 0.0 : s[i] / NATS);
                reference[i] = row.t;
                scale[i] = real(rho[i] / double(row.Z));
            }
        }
    }
    total.write(totals + 2 * blockIdx.x);
}

// A row in accumulate: x = u phi_i, the largest logit, and rho_i / Z_i. The alignment allows wide loads.
struct alignas(16) Row {
    real x[S], t, scale;
};

// Writes partial[n, d, a] = sum_i rho_i q_ia (phi_i, 1)_d over the n-th share of the rows.
// Block (n, g) has that share and the g-th set of team_size * COLUMNS tiles. If there are so few tiles that a team is
// smaller than the block, the rows are distributed among its teams, and a tree adds the sums of the teams.
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1) accumulate(
    const Index N, const Index padded, const Index team_size, const real* phi, const real* tiles, const double unit,
    const real* reference, const real* scale, double* partial
) {
    __shared__ Row stage[STAGE];
    __shared__ double tree[COLUMN_THREADS];
    const int size = team_size, lane = threadIdx.x % size, team = threadIdx.x / size, teams = COLUMN_THREADS / size;
    const Index begin = N * blockIdx.x / gridDim.x, end = N * (blockIdx.x + 1) / gridDim.x;
    const Index leftmost = Index(blockIdx.y) * COLUMNS * size + lane;

    real y[COLUMNS][S], c[COLUMNS];
    #pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
        const Index a = min(leftmost + n * size, padded - 1);  // columns past the end are summed, but not written
        #pragma unroll
        for (int d = 0; d < S; ++d) y[n][d] = tiles[d * padded + a];
        c[n] = tiles[S * padded + a];
    }

    double sums[COLUMNS][S + 1] = {};  // the mass is last
    for (Index first = begin; first < end; first += STAGE) {
        const int height = min(end - first, Index(STAGE));
        __syncthreads();
        for (int j = threadIdx.x; j < height; j += COLUMN_THREADS) {
            const Index i = first + j;
            #pragma unroll
            for (int d = 0; d < S; ++d) stage[j].x[d] = phi[i * S + d] * real(unit);
            stage[j].t = reference[i];
            stage[j].scale = scale[i];
        }
        __syncthreads();
        for (int j = team; j < height; j += SUMMANDS * teams) {
            const int stop = min(height, j + SUMMANDS * teams);
            real part[COLUMNS][S + 1] = {};
            for (int k = j; k < stop; k += teams) {
                const Row row = stage[k];
                #pragma unroll
                for (int n = 0; n < COLUMNS; ++n) {
                    const real x = logit_of(row.x, y[n], c[n]) - row.t;
                    if (!(x < least(x))) {  // written so that a NaN is not skipped
                        const real w = row.scale * exp2(x);  // rho_i q_ia
                        #pragma unroll
                        for (int d = 0; d < S; ++d) part[n][d] = fma(w, row.x[d], part[n][d]);
                        part[n][S] += w;
                    }
                }
            }
            #pragma unroll
            for (int n = 0; n < COLUMNS; ++n)
                #pragma unroll
                for (int d = 0; d <= S; ++d) sums[n][d] += part[n][d];
        }
    }

    #pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
        const Index a = leftmost + n * size;
        #pragma unroll
        for (int d = 0; d <= S; ++d) {
            double sum = sums[n][d];
            if (teams > 1) {
                __syncthreads();
                tree[threadIdx.x] = sum;
                for (int half = teams / 2; half > 0; half /= 2) {
                    __syncthreads();
                    if (team < half) tree[threadIdx.x] += tree[threadIdx.x + half * size];
                }
                sum = tree[threadIdx.x];
            }
            if (d < S) sum /= unit;
            if (team == 0 && a < padded) partial[(blockIdx.x * Index(S + 1) + d) * padded + a] = sum;
        }
    }
}

#else

// On entry products[i, a] = l_ia, on return rho_i q_ia. A team of `team_size` threads of one warp has a row at a time,
// and each of its threads takes every team_size-th tile. Rows from N to `rows` fill up the array and become zero.
extern "C" __global__ void __launch_bounds__(THREADS, 1) encode_products(
    const Index N, const Index rows, const Index padded, const Index team_size, const real* s, const double* rho,
    const real* log_masses, real* products, double* totals
) {
    const int size = team_size, lane = threadIdx.x % size, team = threadIdx.x / size;
    const Index teams = THREADS / size;
    Totals total;
    for (Index first = blockIdx.x * teams; first < rows; first += gridDim.x * teams) {
        const Index i = first + team;
        real* row = products + min(i, rows - 1) * padded;
        Sum sum;
        for (Index a = lane; a < padded; a += GROUP * size) {
            real logit[GROUP], log_pi[GROUP];
            #pragma unroll
            for (int g = 0; g < GROUP; ++g) {
                logit[g] = row[a + g * size];
                log_pi[g] = log_masses[a + g * size];
            }
            sum.add(logit, log_pi);
        }
        sum.join(size);
        if (i < N) {
            if (lane == 0) total.add(sum, rho[i], s[i] / NATS);
            const real scale = real(rho[i] / double(sum.Z));
            #pragma unroll 4
            for (Index a = lane; a < padded; a += size) {
                const real x = row[a] - sum.t;
                row[a] = x < least(x) ? real(0) : scale * exp2(x);
            }
        } else if (i < rows) {
            for (Index a = lane; a < padded; a += size) row[a] = 0;
        }
    }
    total.write(totals + 2 * blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(1024) collect_products(
    const Index P, const Index words, const Index padded, const Index height, const Index width,
    const real* partial, double* total
) {
    collect_parts(P, words, padded, height, width, partial, total);
}

#endif
