// What is called from outside. The fields of the structures stand in __init__.py too, in the same order.

#pragma once

#include <cstdint>

using std::int64_t;
using std::uint8_t;

enum Element : int64_t { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
enum Whole : int64_t { INT64, INT32, INT16, INT8, UINT8 };
enum PixelLoss : int64_t { BCE, CE };
enum Pool : int64_t { NONE, AVERAGE, MAXIMUM, INTERPOLATION };  // NONE: the pixel loss alone

// (N, C) float64, or int64 if is_whole: how much the RMI of each map counts. Strides in elements.
struct MapWeights {
    const void* data;
    int64_t is_whole, stride_n, stride_c;

    double at(int64_t n, int64_t c) const {
        const int64_t place = n * stride_n + c * stride_c;
        return is_whole ? double(static_cast<const int64_t*>(data)[place]) : static_cast<const double*>(data)[place];
    }
};

// Pixel loss and pooled maps. Pixel sums and pooled maps, and gradients in them, are float32, or float64 for float64
// logits.
struct Problem {
    int64_t threads;
    int64_t samples, classes, h, w, height, width;
    int64_t element, soft_element, align_corners, pixel_loss, pool, pool_size, ph, pw;
    int64_t logits_strides[4], gradient_strides[4], grad_strides[2];  // in elements
    void* logits;                                    // (N, C, h, w) of `element`
    const int64_t* target;    // class ids (N, H, W); C where a pixel counts but is of no class; or null
    const void* soft;         // in their place probabilities (N, C, H, W) of `soft_element`; where not valid, anything
    const uint8_t* valid;                            // (N, H, W)
    const double* class_weights;                     // (C,), or null: all are 1
    void* pixel_sums;                                // (N,), out
    void* probabilities;                             // (N, C, ph, pw), out
    void* labels;                                    // (N, C, ph, pw), out; not with INTERPOLATION
    const void* grad_sums;      // (N, 2): in the pixel loss, and in RMI, if there are maps
    MapWeights map_weights;
    const void* gradient_maps;  // (N, C, ph, pw): of the RMI of each map in its probabilities
    void* gradient;             // (N, C, h, w) of `element`, out
};

// RMI of pooled maps.
struct Regions {
    int64_t threads;
    int64_t maps, depth, height, width;  // the depth of images is 1
    int64_t region_size, is_double, with_gradient;
    int64_t batch;  // number of classes, if each has one covariance in all samples: maps are (samples, batch) then; or 0
    int64_t samples, from_perfect;
    double alpha, floor;
    void* probabilities;  // (maps, depth, height, width) float32, or float64 if is_double; with_gradient, their gradient takes
                          // their place
    const void* labels;   // the same
    const uint8_t* counted;  // (maps,): those that are in the covariance of their class; of a batch alone
    double* rmi;          // (maps,), out
    double* perfect;      // (maps,), out: of probabilities that are the labels; or null
    uint8_t* present;     // (maps,), out: whether a label is not zero; or null
    void* sums;              // (samples, 2), out: the pixel loss, and RMI less floor, or less perfect, times map_weights; or null
    const void* pixel_sums;  // (samples,), the former
    MapWeights map_weights;
};

// Class ids, or probabilities of the classes, that are to be checked.
struct Labels {
    int64_t threads;
    int64_t samples, pixels, classes, ignored_count;
    int64_t element;         // of probabilities; of class ids a Whole
    int64_t is_soft, is_mask;
    const int64_t* ignored;  // (ignored_count,)
    const void* target;      // (N, pixels), or, if is_soft, (N, C, pixels)
    int64_t* ids;            // (N, pixels), out: class ids; or null
    float* soft;             // (N, pixels), out: 1 or 0, of masks, in which 1 is the only class; or null
    uint8_t* valid;          // (N, pixels), out
    int64_t* counts;         // (N, 2), out: valid pixels, and 1 if there is one
    uint8_t* unknown;        // (N,), out
};

// A whole loss of class ids: the mean of the pixel loss, times pixel_share, plus, unless pool is NONE, that of RMI, times
// region_share. The pixels' divisor is their number plus `extra`.
struct Loss {
    int64_t threads;  // that there are
    int64_t samples, classes, h, w, height, width;
    int64_t element, target_element, align_corners, pixel_loss, pool, pool_size, ph, pw, region_size;
    int64_t is_batch;  // each class has one covariance in all samples
    int64_t ignored_count, from_perfect, extra;
    int64_t logits_strides[4], gradient_strides[4];
    double alpha, floor, pixel_share, region_share;
    const int64_t* ignored;
    void* logits;        // (N, C, h, w) of `element`
    const void* target;  // (N, H, W) of `target_element`, a Whole
    int64_t* ids;        // (N, H, W), out of forward: the same; null for INT64
    uint8_t* valid;      // (N, H, W), out of forward
    void* maps;          // (N, C, ph, pw), out of forward: gradients of RMI in its probabilities; null if they are not needed
    void* slopes;        // (2,), out of forward: derivatives of the loss in the sum of pixel losses, and in the RMI of a map
    void* loss;          // out of forward; into backward the gradient in it
    void* gradient;      // (N, C, h, w) of `element`, out of backward
};

extern "C" {

// PyTorch's `torch_parallel_for`: calls `run` for parts of `begin` to `end`, each of at least `grain_size`, on its threads.
// Theirs are used and no others, since between two operations they go on turning, on every core.
typedef int32_t ParallelFor(int64_t begin, int64_t end, int64_t grain_size, void (*run)(int64_t, int64_t, void*), void*);
void rmiseg_use_threads(ParallelFor*);

int64_t rmiseg_problem_size();
int64_t rmiseg_regions_size();
int64_t rmiseg_labels_size();
int64_t rmiseg_loss_size();

void rmiseg_read_labels(const Labels* l);
void rmiseg_forward(const Problem* p);
void rmiseg_regions(const Regions* r);
void rmiseg_backward(const Problem* p);

// Returns 0, without a loss, if there are labels that are neither of a class nor ignored.
int64_t rmiseg_loss_forward(const Loss* l);
void rmiseg_loss_backward(const Loss* l);

// Class ids (N, H, W) uint8 in `labels`, of logits (N, C, h, w) with at most 256 classes; pool is NONE.
void rmiseg_argmax(const Problem* p);
}
