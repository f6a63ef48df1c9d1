"""The old name of make_tsne_from_embedding.py."""

import sys

from make_tsne_from_embedding import run, undashed

if __name__ == "__main__":
    sys.exit(run("tsne", undashed(sys.argv[1:]), prog="make_tsne_from_embeddings.py"))
