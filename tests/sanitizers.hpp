/// Which sanitizers the tests are built with: BATCHNORM_TEST_ADDRESS_SANITIZER, BATCHNORM_TEST_THREAD_SANITIZER.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BATCHNORM_TEST_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define BATCHNORM_TEST_THREAD_SANITIZER 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#define BATCHNORM_TEST_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__)
#define BATCHNORM_TEST_THREAD_SANITIZER 1
#endif
