ARG BASE
FROM ${BASE}
# The suite before the base system's still has Python 3.11, the lowest that vLLM 0.32.0 supports; its -venv package clashes.
# Its tcmalloc and its libnuma go into wheels and need GLIBC 2.29 and 2.34; the base system's would need 2.38.
RUN sed -E 's/^(deb [^ ]+) [^ ]+/\1 bookworm/' /etc/apt/sources.list > /etc/apt/sources.list.d/bookworm.list \
    && apt-get update -q \
    && apt-get install -y -q --no-install-recommends python3.11-dev python3.13-dev libtcmalloc-minimal4 \
    && apt-get install -y -q --no-install-recommends --allow-downgrades libnuma1/bookworm libnuma-dev/bookworm \
    && rm -rf /var/lib/apt/lists/* \
    && for tool in gcc g++ gcc-ar gcc-nm gcc-ranlib; do ln -sf $tool-14 /usr/bin/$tool; done \
    && ln -sf gcc-14 /usr/bin/cc \
    && ln -sf g++-14 /usr/bin/c++
# g++ 14 calls a function that only its own libstdc++ has (CXXABI 1.3.15), and this C library's headers lead to functions
# that only GLIBC 2.38 has. Both are linked into what is compiled, hidden, so that it runs where these libraries are older.
# Red Hat's toolsets, and so the manylinux images, have libstdc++_nonshared.a for it, found in the same way.
RUN mkdir /usr/lib/older && cd /usr/lib/older \
    && printf '%s\n' \
        '#include <stdarg.h>' \
        '#include <stdio.h>' \
        '#include <stdlib.h>' \
        '#pragma GCC visibility push(hidden)' \
        'long __isoc23_strtol(const char *t, char **e, int b) { return strtol(t, e, b); }' \
        'unsigned long __isoc23_strtoul(const char *t, char **e, int b) { return strtoul(t, e, b); }' \
        'long long __isoc23_strtoll(const char *t, char **e, int b) { return strtoll(t, e, b); }' \
        'unsigned long long __isoc23_strtoull(const char *t, char **e, int b) { return strtoull(t, e, b); }' \
        'int __isoc23_vsscanf(const char *t, const char *f, va_list a) { return vsscanf(t, f, a); }' \
        'int __isoc23_sscanf(const char *t, const char *f, ...)' \
        '{ va_list a; va_start(a, f); int n = vsscanf(t, f, a); va_end(a); return n; }' > isoc23.c \
    && printf '%s\n' \
        '#include <exception>' \
        'extern "C" void *__cxa_begin_catch(void *) noexcept;' \
        'extern "C" __attribute__((visibility("hidden"))) void __cxa_call_terminate(void *thrown) noexcept' \
        '{ if (thrown) __cxa_begin_catch(thrown); std::terminate(); }' > terminate.cpp \
    && gcc -std=c11 -O2 -fPIC -fno-builtin -c isoc23.c \
    && g++ -O2 -fPIC -c terminate.cpp \
    && ar rcsD libolder.a isoc23.o terminate.o \
    && nm -u isoc23.o | grep -q ' strtol$' \
    && found=$(gcc -print-file-name=libstdc++.so) && rm "$found" \
    && echo 'INPUT ( /usr/lib/older/libolder.a /usr/lib/x86_64-linux-gnu/libstdc++.so.6 )' > "$found"
