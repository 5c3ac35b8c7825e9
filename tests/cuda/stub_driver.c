/* A CUDA driver and runtime that own no GPU: enough for PyTorch to find one device, to make streams and events on it,
 * and to run backward passes of fake tensors, which ask the driver which device they are on. Built and loaded by
 * tests/cuda/stub.py.
 *
 * "Device memory" and pinned memory are memory of the host, copies are copies, and kernels do nothing: a tensor that is
 * really on this device holds whatever was there before. Only functions that must answer something are written out;
 * all others report success.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define OK 0
#define MEMORY ((size_t)140 << 30)

static char context[4096];

/* The beginning of CUDA 13's structure, up to what is asked for here. */
struct cudaDeviceProp {
    char name[256], uuid[16], luid[8];
    unsigned luidDeviceNodeMask;
    size_t totalGlobalMem, sharedMemPerBlock;
    int regsPerBlock, warpSize;
    size_t memPitch;
    int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
    size_t totalConstMem;
    int major, minor;
    size_t textureAlignment, texturePitchAlignment;
    int multiProcessorCount;
};

struct cudaPointerAttributes {
    int type, device;
    void *devicePointer, *hostPointer;
};

static int success(void) { return OK; }

static void *handle(void) { return calloc(1, 64); }

static int allocate(void **pointer, size_t size) {
    *pointer = aligned_alloc(512, (size / 512 + 1) * 512);
    return *pointer ? OK : 2;
}

/* The runtime */

int cudaGetDeviceCount(int *count) { *count = 1; return OK; }
int cudaGetDevice(int *device) { *device = 0; return OK; }
int cudaSetDevice(int device) { return OK; }
int cudaDriverGetVersion(int *version) { *version = 13000; return OK; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return OK; }
int cudaGetLastError(void) { return OK; }
int cudaPeekAtLastError(void) { return OK; }
int cudaDeviceSynchronize(void) { return OK; }
int cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return OK; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = 1; return OK; }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return OK; }
int cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "stub of an H200");
    properties->totalGlobalMem = MEMORY;
    properties->sharedMemPerBlock = 48 << 10;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->major = 9;
    properties->multiProcessorCount = 132;
    return OK;
}
int cudaMemGetInfo(size_t *free_, size_t *total) { *free_ = *total = MEMORY; return OK; }
int cudaMalloc(void **pointer, size_t size) { return allocate(pointer, size); }
int cudaFree(void *pointer) { free(pointer); return OK; }
int cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return allocate(pointer, size); }
int cudaFreeHost(void *pointer) { free(pointer); return OK; }
int cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    return OK;
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) { memcpy(to, from, size); return OK; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    memcpy(to, from, size);
    return OK;
}
int cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return OK; }
int cudaMemsetAsync(void *to, int value, size_t size, void *stream) { memset(to, value, size); return OK; }
int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) { *stream = handle(); return OK; }
int cudaStreamSynchronize(void *stream) { return OK; }
int cudaStreamQuery(void *stream) { return OK; }
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { return OK; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return OK; }
int cudaStreamGetPriority(void *stream, int *priority) { *priority = 0; return OK; }
int cudaThreadExchangeStreamCaptureMode(int *mode) { return OK; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = handle(); return OK; }
int cudaEventRecord(void *event, void *stream) { return OK; }
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { return OK; }
int cudaEventSynchronize(void *event) { return OK; }
int cudaEventQuery(void *event) { return OK; }
int cudaEventDestroy(void *event) { free(event); return OK; }
int cudaEventElapsedTime(float *ms, void *start, void *end) { *ms = 1; return OK; }
int cudaFuncGetAttributes(void *attributes, const void *function) { return OK; }
int cudaFuncSetAttribute(const void *function, int attribute, int value) { return OK; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *f, int n, size_t m, unsigned g) {
    *blocks = 1;
    return OK;
}
int cudaLaunchKernel(const void *function, ...) { return OK; }
int cudaLaunchKernelExC(const void *config, const void *function, void **arguments) { return OK; }
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                     int *status) {
    void *found = dlsym(RTLD_DEFAULT, name);
    *function = found ? found : (void *)success;
    if (status) *status = 0;
    return OK;
}

/* The driver */

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return OK; }
int cuDevicePrimaryCtxRetain(void **found, int device) { *found = context; return OK; }
int cuCtxGetCurrent(void **found) { *found = context; return OK; }
int cuCtxSetCurrent(void *wanted) { return OK; }
int cuCtxGetDevice(int *device) { *device = 0; return OK; }
int cuGetErrorString(int error, const char **says) { *says = "an error of the stub"; return OK; }
