ARG BASE
FROM ${BASE}
# numactl-devel: vLLM links libnuma. ccache is only in the extra packages for enterprise Linux.
RUN dnf install -y epel-release && dnf install -y ccache numactl-devel && dnf clean all
