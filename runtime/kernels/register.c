/* Where ONNX Runtime finds the kernels: it asks a registered operator before its own of the same name. Those that have
 * no other are of a domain of their own. */
#include <pthread.h>

#include "operators.h"
#include "variants.h"

#define ONNXRUNTIMES_DOMAIN "com.microsoft"
#define OWN_DOMAIN "sottovoce"

const char *cpu_provider(const OrtCustomOp *operator) { return (void)operator, "CPUExecutionProvider"; }
int host_memory(const OrtCustomOp *operator, size_t index) { return (void)operator, (void)index, 0; }
int always_float(const OrtCustomOp *operator, size_t index) { return (void)operator, (void)index, ORT_FLOAT; }
int always_there(const OrtCustomOp *operator, size_t index) { return (void)operator, (void)index, ORT_REQUIRED; }
int first_version(const OrtCustomOp *operator) { return (void)operator, 1; }
int last_version(const OrtCustomOp *operator) { return (void)operator, INT32_MAX; }

/* Every session's: ONNX Runtime keeps only the addresses. Set together, or not at all. */
static OrtCustomOpDomain *replacements, *own;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static OrtStatus *create_domain(OrtApi *api, const char *name, const OrtCustomOp *const *operators, size_t count,
                                OrtCustomOpDomain **made) {
    ORT_TRY(ort_CreateCustomOpDomain(api)(name, made));
    for (size_t i = 0; i < count; i++) ORT_TRY(ort_CustomOpDomain_Add(api)(*made, operators[i]));
    return NULL;
}

static OrtStatus *create_domains(OrtApi *api) {
    const OrtCustomOp *const replacing[] = {&MATMUL_NBITS, &GROUP_QUERY_ATTENTION};
    OrtCustomOpDomain *first, *second;
    ORT_TRY(create_domain(api, ONNXRUNTIMES_DOMAIN, replacing, sizeof replacing / sizeof *replacing, &first));
    ORT_TRY(create_domain(api, OWN_DOMAIN, LAYER_OPERATORS, LAYER_OPERATOR_COUNT, &second));
    replacements = first;
    own = second;
    return NULL;
}

/* By this name ONNX Runtime calls a library that is registered. */
__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                    const OrtApiBase *base) {
    OrtApi *api = base->GetApi(ORT_INTERFACE);
    pthread_mutex_lock(&lock);
    OrtStatus *problem = own == NULL ? create_domains(api) : NULL;
    pthread_mutex_unlock(&lock);
    if (problem == NULL) problem = ort_AddCustomOpDomain(api)(options, replacements);
    return problem != NULL ? problem : ort_AddCustomOpDomain(api)(options, own);
}

/* For Python, before it registers anything: 0 where this processor runs none, 1 with AVX2, 2 with AVX-512. */
__attribute__((visibility("default"))) int sottovoce_kernels_level(void) { return chosen_level(); }

/* For tests and measurements: take at most these. */
__attribute__((visibility("default"))) void sottovoce_kernels_allow(int at_most) { allow_level(at_most); }
