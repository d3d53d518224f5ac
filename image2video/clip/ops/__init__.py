"""The ops of genotypes, geometric and photometric, their registry, and the contract that an op of your own keeps."""
