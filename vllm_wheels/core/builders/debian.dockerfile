ARG BASE
FROM ${BASE}
# The suite before the base system's still has Python 3.11, the lowest that vLLM 0.32.0 supports; its -venv package clashes.
# Its tcmalloc goes into wheels and needs GLIBC_2.29 only; the base system's would need GLIBC_2.38.
RUN sed -E 's/^(deb [^ ]+) [^ ]+/\1 bookworm/' /etc/apt/sources.list > /etc/apt/sources.list.d/bookworm.list \
    && apt-get update -q \
    && apt-get install -y -q --no-install-recommends python3.11-dev python3.13-dev libtcmalloc-minimal4 \
    && rm -rf /var/lib/apt/lists/* \
    && for tool in gcc g++ gcc-ar gcc-nm gcc-ranlib; do ln -sf $tool-14 /usr/bin/$tool; done \
    && ln -sf gcc-14 /usr/bin/cc \
    && ln -sf g++-14 /usr/bin/c++
