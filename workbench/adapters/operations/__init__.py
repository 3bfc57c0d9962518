"""Operations on trained adapters' tensors: compress, sparsify, merge; one file per method."""
