ARG BASE
FROM ${BASE}
# numactl-devel: vLLM links libnuma. gperftools-libs: tcmalloc goes into wheels. It and ccache are only in the extra packages
# for enterprise Linux.
RUN dnf install -y epel-release && dnf install -y ccache numactl-devel gperftools-libs && dnf clean all
