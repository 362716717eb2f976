/* Marks the operations of a program, for the crash harness (holdfast crash run --run).
 *
 *     holdfast_crash_begin();
 *     add_to_list(pool, item);
 *     holdfast_crash_acknowledge();       // from here on a crash must not lose it
 *
 * Including this file is all: there is nothing to link. In a program that runs under the harness
 * the functions are those of libholdfast-crash-preload.so; in every other they do nothing.
 * Operations follow one another; begin one only after the one before was acknowledged. C and C++,
 * x86-64 Linux; elsewhere they do nothing. */
#ifndef HOLDFAST_CRASH_OPERATIONS_H
#define HOLDFAST_CRASH_OPERATIONS_H

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

/* Loaded from the table that the dynamic linker fills in: a plain reference to a weak symbol is
 * decided when a program that is no PIE is linked, before there is a preloaded library. */
#define HOLDFAST_CRASH_CALL(symbol)                    \
    do {                                               \
        void (*function)(void);                        \
        __asm__(".weak " #symbol                       \
                "\n\t"                                 \
                "movq " #symbol "@GOTPCREL(%%rip), %0" \
                : "=r"(function));                     \
        if (function) function();                      \
    } while (0)

#else
#define HOLDFAST_CRASH_CALL(symbol) \
    do {                            \
    } while (0)
#endif

/* An operation begins. */
static inline void holdfast_crash_begin(void) {
    HOLDFAST_CRASH_CALL(holdfast_crash_operation_begins);
}

/* It is done, and durable if it is ever to be. */
static inline void holdfast_crash_acknowledge(void) {
    HOLDFAST_CRASH_CALL(holdfast_crash_operation_acknowledged);
}

#endif
